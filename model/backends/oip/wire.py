"""Requests and responses of the Open Inference Protocol v2, with its binary tensor data extension or as JSON.

See https://github.com/kserve/open-inference-protocol and Triton's protocol/extension_binary_data.md. Request bodies are
identical to those of `tritonclient.http`, byte for byte.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from model.backends.oip.errors import EngineFailed

HEADER_LENGTH = "Inference-Header-Content-Length"
INPUT_TYPES: Mapping[str, type[np.generic]] = {"UINT8": np.uint8, "FP32": np.float32}
"""The types in which an image can be sent, by the protocol's names."""

_OUTPUT_TYPE = "FP32"
_ITEM_BYTES = 4
_SHOWN_CHARACTERS = 200


class EncodedRequest(NamedTuple):
    """`header_length` is the length in bytes of the JSON before binary data; None for a body that is all JSON."""

    body: bytes
    header_length: int | None


class InferResponse(Struct, frozen=True):
    """The outputs, float32, and the model's `version`, which is None if the engine does not report it."""

    version: str | None
    outputs: Mapping[str, NDArray[np.float32]]


def encode_request(
    name: str,
    values: NDArray[Any],
    outputs: Sequence[str],
    *,
    binary: bool,
    timeout_us: int | None = None,
) -> EncodedRequest:
    """Encode the input `name`, uint8 or float32, and request `outputs`. `binary` applies to both."""
    data = values.tobytes() if binary else b""
    tensor: dict[str, Any] = {"name": name, "shape": list(values.shape), "datatype": _name_type(values.dtype)}
    if binary:
        tensor["parameters"] = {"binary_data_size": len(data)}
    else:
        tensor["data"] = values.ravel().tolist()
    document: dict[str, Any] = {
        "inputs": [tensor],
        "outputs": [{"name": output, "parameters": {"binary_data": binary}} for output in outputs],
    }
    if timeout_us is not None:
        document["parameters"] = {"timeout": timeout_us}
    header = json.dumps(document, separators=(",", ":")).encode()
    return EncodedRequest(header + data, len(header) if binary else None)


def decode_response(body: bytes, header_length: str | None) -> InferResponse:
    """Decode a response; `header_length` is its header HEADER_LENGTH. Raises EngineFailed."""
    try:
        length = len(body) if header_length is None else int(header_length)
        if not 0 <= length <= len(body):
            raise ValueError(f"{HEADER_LENGTH} is {length}, and the body has {len(body)} bytes")
        document = json.loads(body[:length])
        version = document.get("model_version")
        outputs = _decode_outputs(document["outputs"], memoryview(body)[length:])
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        detail = f"{type(error).__name__}: {error}"[:_SHOWN_CHARACTERS]
        raise EngineFailed(f"The response is not one of the Open Inference Protocol ({detail})") from error
    return InferResponse(None if version is None else str(version)[:_SHOWN_CHARACTERS], outputs)


def describe_error(body: bytes) -> str:
    """Return an engine's error message, shortened for a log."""
    text = body[: 4 * _SHOWN_CHARACTERS].decode(errors="replace")
    with suppress(KeyError, TypeError, ValueError, RecursionError):
        text = str(json.loads(body)["error"])
    return text[:_SHOWN_CHARACTERS]


def _decode_outputs(entries: Sequence[Mapping[str, Any]], data: memoryview) -> dict[str, NDArray[np.float32]]:
    """Decode the outputs from JSON, or from the binary `data` after it. Raises ValueError, among others."""
    outputs, offset = {}, 0
    for entry in entries:
        name, shape = entry["name"], [int(side) for side in entry["shape"]]
        if entry["datatype"] != _OUTPUT_TYPE or min(shape, default=0) < 0:
            raise ValueError(f"the output {name} is {entry['datatype']} {shape}")
        size = (entry.get("parameters") or {}).get("binary_data_size")
        if size is None:
            outputs[name] = np.asarray(entry["data"], np.float32).reshape(shape)
            continue
        if size != math.prod(shape) * _ITEM_BYTES or size > len(data) - offset:
            raise ValueError(f"the output {name} has {size} bytes")
        outputs[name] = np.frombuffer(data, "<f4", size // _ITEM_BYTES, offset).reshape(shape)
        offset += size
    return outputs


def _name_type(dtype: np.dtype[Any]) -> str:
    return next(name for name, kind in INPUT_TYPES.items() if dtype == kind)
