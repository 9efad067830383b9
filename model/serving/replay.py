"""Repeat a recorded prediction and compare it with the record, bit for bit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec import Struct, field

from model.backends.base import Backend
from model.backends.engines import SCHEMES
from model.backends.oip.address import SCHEMES as ENGINE_SCHEMES
from model.backends.onnx import MODEL_FILE
from model.backends.open import open_backend
from model.confidence.policy import AbstentionPolicy
from model.errors import ReplayImpossible
from model.registry.artefact import find_artefact
from model.serving.prediction import Prediction, predict_image
from model.serving.runtime import runtime_facts
from model.serving.sources import TENSOR_FORMAT, ImageSource, PixelTensor

if TYPE_CHECKING:
    from model.signing.keys import PublicKey


class ReplayResult(Struct):
    """`differences` are sentences, none if all bits are equal; `largest` is the largest difference of a probability."""

    differences: list[str] = field(default_factory=list)
    largest: float = 0.0

    @property
    def identical(self) -> bool:
        return not self.differences


def replay(
    recorded: Mapping[str, Any], image: bytes, folders: Iterable[Path], key: PublicKey | None = None
) -> ReplayResult:
    """Predict `image` again with the model of the recorded digest, and compare the result with the record.

    `recorded` has the members model, image, output, preprocessing and runtime of a ledger entry. `folders` are artefact
    folders, one of which should hold that model. If `key` is given, the model must be signed with it.
    Raises ReplayImpossible, DigestMismatch, ArtefactError, EngineMissing, a subclass of ImageRejected.
    """
    if recorded["output"] is None:
        raise ReplayImpossible("This request got no prediction, so there is nothing to reproduce.")
    if hashlib.sha256(image).hexdigest() != recorded["image"]["sha256"]:
        raise ReplayImpossible("This is another image: its SHA-256 differs from the recorded one.")
    backend = _open_recorded_backend(recorded["model"], folders, key)
    try:
        return _compare(recorded, predict_image(backend, _read_source(recorded["image"], image)))
    finally:
        backend.close()


def _read_source(recorded: Mapping[str, Any], image: bytes) -> ImageSource:
    """Return the file, or the pixels if the client sent decoded pixels."""
    if recorded["format"] == TENSOR_FORMAT:
        return PixelTensor(image, recorded["height"], recorded["width"])
    return image


def _open_recorded_backend(model: Mapping[str, Any], folders: Iterable[Path], key: PublicKey | None) -> Backend:
    digest, name = model["digest"], f"{model['name']}-v{model['version']}"
    if model["backend"] == "stub":
        stub = open_backend("stub://")
        if stub.info.digest != digest:
            raise ReplayImpossible("The stub has changed: its digest differs from the recorded one.")
        return stub
    if model["backend"] in ENGINE_SCHEMES:
        raise ReplayImpossible(
            "An inference engine computed this prediction, so this machine cannot reproduce its bits."
        )
    if model["backend"] not in SCHEMES:
        raise ReplayImpossible(f"The back end {model['backend']} is for development; only onnx can be reproduced.")
    folder = find_artefact(folders, MODEL_FILE, digest, name)
    if folder is None:
        raise ReplayImpossible(f"No folder holds {name} with the digest {digest}. Name its folder with --model.")
    return open_backend(f"{model['backend']}://{folder}", key=key)


def _compare(recorded: Mapping[str, Any], prediction: Prediction) -> ReplayResult:
    previous, comparison = recorded["output"]["probabilities"], ReplayResult()
    current = dict(zip(prediction.model.classes, prediction.probabilities.tolist(), strict=True))
    if previous.keys() != current.keys():
        comparison.differences.append("The classes differ.")
        return comparison
    comparison.differences += _compare_confidence(recorded["output"], prediction)
    if _to_bits(previous) == _to_bits(current):
        return comparison
    comparison.largest = max(abs(previous[label] - current[label]) for label in previous)
    comparison.differences.append(f"The probabilities differ by {comparison.largest:.3g} at most.")
    preprocessing = prediction.model.input_spec.preprocessing
    if recorded["preprocessing"] != preprocessing:
        comparison.differences.append(f"Preprocessing was {recorded['preprocessing']}, and is {preprocessing} now.")
    for name, value in runtime_facts().items():
        if (before := recorded["runtime"].get(name, "")) != value:
            comparison.differences.append(f"{name} was {before}, and is {value} here.")
    return comparison


def _compare_confidence(output: Mapping[str, Any], prediction: Prediction) -> Iterator[str]:
    """Describe differences that come from the manifest, not the graph. Entries of release 0.1.0 lack these values."""
    before, now = output.get("temperature"), prediction.model.confidence.temperature
    if before is not None and before != now:
        yield f"The temperature was {before}, and is {now} now."
    abstention = output.get("abstention")
    if abstention is not None and abstention["policy"] != AbstentionPolicy.OFF:
        reason = abstention["reason"]
        if reason != prediction.reason:
            yield f"The reason to abstain was {reason or 'none'}, and is {prediction.reason or 'none'} now."


def _to_bits(probabilities: Mapping[str, float]) -> bytes:
    return np.array([probabilities[label] for label in sorted(probabilities)], np.float32).tobytes()
