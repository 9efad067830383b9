"""Whether a prediction of long ago comes out the same today, bit for bit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from model.backends import Backend, open_backend
from model.backends.onnx import MODEL_FILE
from model.errors import ReplayImpossible
from model.imaging.decode import PREPROCESSING, decode_image
from model.registry.artefact import find_artefact
from model.serving.runtime import runtime_facts


@dataclass(slots=True)
class Comparison:
    """`differences` are sentences, none where every bit is the same; the largest one between two probabilities."""

    differences: list[str] = field(default_factory=list)
    largest: float = 0.0

    @property
    def identical(self) -> bool:
        return not self.differences


def replay(recorded: Mapping[str, Any], image: bytes, folders: Iterable[Path]) -> Comparison:
    """Predict anew from the image what was recorded of it, with the model of the recorded digest.

    `recorded` has the members model, image, output, preprocessing and runtime of a prediction's record; `folders` are
    artefacts, of which one should be that model.
    Raises ReplayImpossible, DigestMismatch, ArtefactError, a subclass of ImageRefused.
    """
    if recorded["output"] is None:
        raise ReplayImpossible("This request got no prediction, so there is nothing to reproduce.")
    if hashlib.sha256(image).hexdigest() != recorded["image"]["sha256"]:
        raise ReplayImpossible("This is another image: its SHA-256 is not the recorded one.")
    backend = _backend_of(recorded["model"], folders)
    try:
        probabilities = backend.predict(decode_image(image).pixels[np.newaxis])[0]
        return _compared(recorded, dict(zip(backend.info.classes, probabilities.tolist(), strict=True)))
    finally:
        backend.close()


def _backend_of(model: Mapping[str, Any], folders: Iterable[Path]) -> Backend:
    digest, name = model["digest"], f"{model['name']}-v{model['version']}"
    if model["backend"] == "stub":
        stub = open_backend("stub://")
        if stub.info.digest != digest:
            raise ReplayImpossible("The stub was another one: its digest is not the recorded one.")
        return stub
    if model["backend"] != "onnx":
        raise ReplayImpossible(f"The back end {model['backend']} was used in development; only onnx can be reproduced.")
    folder = find_artefact(folders, MODEL_FILE, digest)
    if folder is None:
        raise ReplayImpossible(f"No folder holds {name} with the digest {digest}. Name it with --model.")
    return open_backend(f"onnx://{folder}")


def _compared(recorded: Mapping[str, Any], now: Mapping[str, float]) -> Comparison:
    then, comparison = recorded["output"]["probabilities"], Comparison()
    if then.keys() != now.keys():
        comparison.differences.append("The classes are others.")
        return comparison
    if _bits(then) == _bits(now):
        return comparison
    comparison.largest = max(abs(then[label] - now[label]) for label in then)
    comparison.differences.append(f"The probabilities differ by {comparison.largest:.3g} at most.")
    if recorded["preprocessing"] != PREPROCESSING:
        comparison.differences.append(f"Preprocessing was {recorded['preprocessing']}, and is {PREPROCESSING} now.")
    for name, value in runtime_facts().items():
        if (before := recorded["runtime"].get(name, "")) != value:
            comparison.differences.append(f"{name} was {before}, and is {value} here.")
    return comparison


def _bits(probabilities: Mapping[str, float]) -> bytes:
    return np.array([probabilities[label] for label in sorted(probabilities)], np.float32).tobytes()
