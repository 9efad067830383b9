"""Repeating recorded predictions."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import asdict

from model.backends.base import Backend
from model.backends.open import open_backend
from model.errors import DigestMismatch, ReplayImpossible
from model.imaging.decode import decode_image
from model.imaging.input_spec import DEFAULT_INPUT
from model.registry.artefact import find_artefact
from model.serving.replay import replay
from model.serving.runtime import runtime_facts
from model.serving.sources import TENSOR_FORMAT
from model.signing.errors import SignatureInvalid
from model.signing.keys import RELEASE_KEY, read_public_key
from tests.model.signing.forging import new_key


def record(backend: Backend, image: bytes) -> dict[str, Any]:
    """Return the ledger entry of a prediction."""
    info = backend.info
    probabilities = backend.predict(decode_image(image, info.input_spec).pixels[np.newaxis])[0].tolist()
    return {
        "model": asdict(info),
        "image": {"sha256": hashlib.sha256(image).hexdigest(), "format": "JPEG"},
        "output": {"probabilities": dict(zip(info.classes, probabilities, strict=True))},
        "preprocessing": info.input_spec.preprocessing,
        "runtime": dict(runtime_facts()),
    }


def change_last_bit(entry: dict[str, Any]) -> float:
    """Change the last bit of one probability. Returns the difference."""
    probabilities = entry["output"]["probabilities"]
    label, before = next(iter(probabilities.items()))
    probabilities[label] = float(np.nextafter(np.float32(before), np.float32(1)))
    return float(probabilities[label] - before)


@pytest.fixture(scope="session")
def image(samples: Sequence[Path]) -> bytes:
    return samples[0].read_bytes()


@pytest.fixture
def by_stub(image: bytes) -> dict[str, Any]:
    return record(open_backend("stub://"), image)


@pytest.fixture(scope="session")
def by_model(artefact_folder: Path, image: bytes) -> dict[str, Any]:
    backend = open_backend(f"onnx://{artefact_folder}")
    entry = record(backend, image)
    backend.close()
    return entry


def test_the_same_model_gives_the_same_bits(
    by_model: dict[str, Any], artefact_folder: Path, image: bytes, tmp_path: Path
) -> None:
    """The shipped model is found by its digest among other folders, and reproduces every bit."""
    comparison = replay(by_model, image, [tmp_path, tmp_path / "nowhere", artefact_folder])
    assert (comparison.identical, comparison.differences, comparison.largest) == (True, [], 0.0)


def test_one_bit_is_a_difference(by_stub: dict[str, Any], image: bytes) -> None:
    """A difference in the last bit of one probability is reported, with its size."""
    difference = change_last_bit(by_stub)
    comparison = replay(by_stub, image, [])
    assert (comparison.identical, comparison.largest) == (False, difference)
    assert comparison.differences == [f"The probabilities differ by {difference:.3g} at most."]


def test_possible_causes_are_listed(by_stub: dict[str, Any], image: bytes) -> None:
    """When probabilities differ, other differences are listed: preprocessing, library versions, the processor."""
    change_last_bit(by_stub)
    by_stub["preprocessing"] = "0"
    by_stub["runtime"] |= {"pillow": "1.0", "processor": "Z80"}
    text = " ".join(replay(by_stub, image, []).differences)
    assert f"Preprocessing was 0, and is {DEFAULT_INPUT.preprocessing} now." in text
    assert "pillow was 1.0, and is " in text
    assert "processor was Z80, and is " in text
    assert "numpy" not in text


def test_another_runtime_with_the_same_bits_is_identical(by_stub: dict[str, Any], image: bytes) -> None:
    """Other library versions are not reported when the probabilities are equal."""
    by_stub["runtime"]["numpy"] = "1.0"
    assert replay(by_stub, image, []).identical


def test_pixels_are_replayed_as_pixels(by_stub: dict[str, Any], image: bytes) -> None:
    """If the client sent decoded pixels, their bytes are replayed."""
    pixels = decode_image(image, DEFAULT_INPUT).pixels
    height, width, _ = pixels.shape
    by_stub["image"] = {
        "sha256": hashlib.sha256(pixels.tobytes()).hexdigest(),
        "format": TENSOR_FORMAT,
        "height": height,
        "width": width,
    }
    assert replay(by_stub, pixels.tobytes(), []).identical


@pytest.mark.parametrize(
    ("output", "differences"),
    [
        ({"temperature": 1.0, "abstention": {"policy": "mark", "reason": None}}, []),
        ({"temperature": 1.5}, ["The temperature was 1.5, and is 1.0 now."]),
        (
            {"abstention": {"policy": "refuse", "reason": "low_confidence"}},
            ["The reason to abstain was low_confidence, and is none now."],
        ),
        ({"abstention": {"policy": "off", "reason": None}}, []),
        ({}, []),
    ],
    ids=["same", "temperature", "reason", "off", "release 0.1.0"],
)
def test_another_confidence_is_a_difference(
    by_stub: dict[str, Any], image: bytes, output: dict[str, Any], differences: list[str]
) -> None:
    """A different temperature or reason to abstain is reported, even if all probabilities are equal."""
    by_stub["output"] |= output
    comparison = replay(by_stub, image, [])
    assert (comparison.differences, comparison.largest) == (differences, 0.0)


def test_other_classes_are_a_difference(by_stub: dict[str, Any], image: bytes) -> None:
    """A label that the model no longer has is reported."""
    by_stub["output"]["probabilities"]["moon"] = 0.0
    assert replay(by_stub, image, []).differences == ["The classes differ."]


def test_each_reason_against_a_replay_has_its_own_message(by_stub: dict[str, Any], image: bytes) -> None:
    """No prediction, another image, a development back end, a changed stub and a missing model each have a message."""
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


def test_a_damaged_model_is_not_a_missing_one(
    by_model: dict[str, Any], artefact_folder: Path, image: bytes, tmp_path: Path
) -> None:
    """A folder whose manifest lists the digest but whose file differs raises DigestMismatch."""
    shutil.copy(artefact_folder / "manifest.json", tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"another")
    digest = by_model["model"]["digest"]
    assert find_artefact([tmp_path], "model.onnx", digest, "another-v1.0") == tmp_path
    assert find_artefact([tmp_path], "model.keras", digest, "another-v1.0") is None
    with pytest.raises(DigestMismatch):
        replay(by_model, image, [tmp_path])


def test_only_a_signed_model_is_loaded_where_signatures_are_required(
    by_model: dict[str, Any], artefact_folder: Path, image: bytes
) -> None:
    """The prediction is replayed with the key that signed the artefact, and rejected with another key."""
    assert replay(by_model, image, [artefact_folder], read_public_key(RELEASE_KEY)).identical
    with pytest.raises(SignatureInvalid):
        replay(by_model, image, [artefact_folder], new_key().public_key())
