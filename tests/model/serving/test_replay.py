from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.backends.base import Backend
from model.backends.open import open_backend
from model.errors import DigestMismatch, ReplayImpossible
from model.imaging.decode import decode_image
from model.imaging.input_spec import DEFAULT_INPUT
from model.registry.artefact import find_artefact
from model.serving.replay import replay
from model.serving.runtime import runtime_facts


def recorded(backend: Backend, image: bytes) -> dict[str, Any]:
    """What is on the record of a prediction by the back end."""
    info = backend.info
    probabilities = backend.predict(decode_image(image, info.input_spec).pixels[np.newaxis])[0].tolist()
    return {
        "model": asdict(info),
        "image": {"sha256": hashlib.sha256(image).hexdigest()},
        "output": {"probabilities": dict(zip(info.classes, probabilities, strict=True))},
        "preprocessing": info.input_spec.preprocessing,
        "runtime": dict(runtime_facts()),
    }


def nudged(record: dict[str, Any]) -> float:
    """Move one probability by the last of its bits; returns by how much."""
    probabilities = record["output"]["probabilities"]
    label, before = next(iter(probabilities.items()))
    probabilities[label] = float(np.nextafter(np.float32(before), np.float32(1)))
    return float(probabilities[label] - before)


@pytest.fixture(scope="session")
def image(samples: Sequence[Path]) -> bytes:
    return samples[0].read_bytes()


@pytest.fixture
def by_stub(image: bytes) -> dict[str, Any]:
    return recorded(open_backend("stub://"), image)


@pytest.fixture(scope="session")
def by_model(artefact_folder: Path, image: bytes) -> dict[str, Any]:
    backend = open_backend(f"onnx://{artefact_folder}")
    record = recorded(backend, image)
    backend.close()
    return record


def test_the_same_model_gives_the_same_bits(
    by_model: dict[str, Any], artefact_folder: Path, image: bytes, tmp_path: Path
) -> None:
    """The shipped model is found by its digest among other folders, and reproduces every bit."""
    comparison = replay(by_model, image, [tmp_path, tmp_path / "nowhere", artefact_folder])
    assert (comparison.identical, comparison.differences, comparison.largest) == (True, [], 0.0)


def test_a_bit_is_a_difference(by_stub: dict[str, Any], image: bytes) -> None:
    """One bit of one probability is told, and by how much."""
    by = nudged(by_stub)
    comparison = replay(by_stub, image, [])
    assert (comparison.identical, comparison.largest) == (False, by)
    assert comparison.differences == [f"The probabilities differ by {by:.3g} at most."]


def test_causes_are_named(by_stub: dict[str, Any], image: bytes) -> None:
    """Where bits differ, so do those told apart: preprocessing, a library's version, the processor."""
    nudged(by_stub)
    by_stub["preprocessing"] = "0"
    by_stub["runtime"] |= {"pillow": "1.0", "processor": "Z80"}
    told = " ".join(replay(by_stub, image, []).differences)
    assert f"Preprocessing was 0, and is {DEFAULT_INPUT.preprocessing} now." in told
    assert "pillow was 1.0, and is " in told
    assert "processor was Z80, and is " in told
    assert "numpy" not in told


def test_another_runtime_with_the_same_bits_is_identical(by_stub: dict[str, Any], image: bytes) -> None:
    """Versions matter only where they change something."""
    by_stub["runtime"]["numpy"] = "1.0"
    assert replay(by_stub, image, []).identical


def test_other_classes_are_a_difference(by_stub: dict[str, Any], image: bytes) -> None:
    """Labels that the model does not have any more are told."""
    by_stub["output"]["probabilities"]["moon"] = 0.0
    assert replay(by_stub, image, []).differences == ["The classes differ."]


def test_what_cannot_be_reproduced(by_stub: dict[str, Any], image: bytes) -> None:
    """No answer, another image, a back end of development and another stub are each a reason of their own."""
    model = by_stub["model"]
    for change, sent, reason in (
        ({"output": None}, image, "got no prediction"),
        ({}, image + b"\0", "another image"),
        ({"model": {**model, "backend": "keras"}}, image, "back end keras"),
        ({"model": {**model, "digest": "0" * 64}}, image, "has changed"),
        ({"model": {**model, "backend": "onnx"}}, image, "No folder holds stub-v1.0"),
    ):
        with pytest.raises(ReplayImpossible, match=reason):
            replay(by_stub | change, sent, [])


def test_a_damaged_model_is_told_apart(
    by_model: dict[str, Any], artefact_folder: Path, image: bytes, tmp_path: Path
) -> None:
    """A folder that names the digest but holds another file is damaged, not missing."""
    shutil.copy(artefact_folder / "manifest.json", tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"another")
    assert find_artefact([tmp_path], "model.onnx", by_model["model"]["digest"]) == tmp_path
    assert find_artefact([tmp_path], "model.keras", by_model["model"]["digest"]) is None
    with pytest.raises(DigestMismatch):
        replay(by_model, image, [tmp_path])
