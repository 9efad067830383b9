"""Read an engine's metadata of itself and of the model, and compare it with the manifest."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from model.backends.oip.address import EngineAddress
from model.backends.oip.errors import EngineMismatch
from model.backends.oip.wire import INPUT_TYPES
from model.registry.artefact import Manifest

_BINARY = "binary_tensor_data"
_TRITON = "triton"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_UNKNOWN_SIDE = -1


class EngineModel(Struct, frozen=True):
    """The model on one engine.

    `datatype` is the protocol's name for the input's type. `outputs` names the outputs that the gateway can use.
    `binary` says whether the engine takes binary tensors, and `takes_timeout` whether it takes the request parameter
    `timeout`. `digest` is the SHA-256 of the weights in hex, from the parameter `digest` of the model's metadata; None
    if it is missing.
    """

    input_name: str
    datatype: str
    outputs: frozenset[str]
    version: str | None
    binary: bool
    takes_timeout: bool
    digest: str | None


def read_metadata(
    server: Mapping[str, Any],
    model: Mapping[str, Any],
    address: EngineAddress,
    manifest: Manifest,
    channels: int | None = None,
) -> EngineModel:
    """Read the responses of GET /v2 and of GET on the model. Raises EngineMismatch if it is not the manifest's model.

    `channels` is the number of feature maps that the manifest's gate and head take.
    """
    try:
        versions = [str(version) for version in model.get("versions") or ()]
        _check_version(versions, address)
        (image,) = model["inputs"]
        outputs = {str(output["name"]): output for output in model["outputs"]}
        _check_input(image, manifest)
        _check_output(outputs["probabilities"], 1, len(manifest.classes))
        for name, sides in (("pooled", 1), ("features", 3)):
            if name in outputs:
                _check_output(outputs[name], sides, channels)
        binary, name = _BINARY in (server.get("extensions") or ()), str(server.get("name", ""))
        digest = str((model.get("parameters") or {}).get("digest", ""))
    except (AttributeError, KeyError, OverflowError, RecursionError, TypeError, ValueError) as error:
        raise EngineMismatch(
            f"The metadata of the model {address.model} on the engine cannot be used: {error!r}. The model must have "
            "one input and the output `probabilities`."
        ) from error
    return EngineModel(
        input_name=str(image["name"]),
        datatype=image["datatype"],
        outputs=frozenset(outputs) & {"probabilities", "pooled", "features"},
        version=address.version or (versions[-1] if versions else None),
        binary=binary,
        takes_timeout=name == _TRITON,
        digest=digest if _DIGEST.fullmatch(digest) else None,
    )


def _check_version(versions: Sequence[str], address: EngineAddress) -> None:
    if address.version is not None and versions and address.version not in versions:
        raise EngineMismatch(
            f"The engine serves the versions {', '.join(versions)} of {address.model}, not {address.version}. Correct "
            "the version in MODEL__URL."
        )


def _check_input(image: Mapping[str, Any], manifest: Manifest) -> None:
    expected = list(manifest.input_spec.shape)
    if image["datatype"] not in INPUT_TYPES or not _fits(image["shape"], expected):
        raise EngineMismatch(
            f"The engine's input {image['name']} is {image['datatype']} {image['shape']}, but the manifest of "
            f"{manifest.full_name} describes UINT8 or FP32 [n, {', '.join(map(str, expected))}]. Set MODEL__MANIFEST "
            "to the folder of the served model."
        )


def _check_output(output: Mapping[str, Any], sides: int, last: int | None) -> None:
    """Check an output with `sides` axes besides the batch axis. `last` is the length of the last axis, None for any."""
    expected = [_UNKNOWN_SIDE] * (sides - 1) + [_UNKNOWN_SIDE if last is None else last]
    if output["datatype"] != "FP32" or not _fits(output["shape"], expected):
        raise EngineMismatch(
            f"The engine's output {output['name']} is {output['datatype']} {output['shape']}, but the manifest "
            f"describes FP32 {[_UNKNOWN_SIDE, *expected]}. Set MODEL__MANIFEST to the folder of the served model."
        )


def _fits(shape: Sequence[Any], expected: Sequence[int]) -> bool:
    """Whether `shape` is a batch of `expected`. An engine reports -1 for an axis of any length."""
    sides = [int(side) for side in shape]
    return len(sides) == len(expected) + 1 and all(
        _UNKNOWN_SIDE in (side, wanted) or side == wanted for side, wanted in zip(sides[1:], expected, strict=True)
    )
