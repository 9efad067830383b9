"""What users can rely on from the model that ships with the project."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from model.backends.onnx import OnnxBackend
from model.confidence.abstention import AbstentionReason
from model.confidence.calibration import calibrate
from model.explanation.grad_cam import compute_grad_cam
from model.imaging.decode import decode_image
from model.offline.negatives.catalogue import list_generated
from model.offline.negatives.roles import Role
from model.serving.prediction import Prediction, predict_image
from tests.support.paths import ARTEFACT, ROOT

SAMPLES = sorted((ROOT / "samples").glob("*.jpg"))
GOLDEN = ROOT / "tests" / "model" / "fixtures" / "golden_predictions.json"
CATEGORIES = {"documents": 0.9, "screenshots": 0.9, "noise": 0.9, "plain surfaces": 0.9}


@pytest.fixture(scope="module")
def backend() -> Iterator[OnnxBackend]:
    backend = OnnxBackend(ARTEFACT)
    yield backend
    backend.close()


@pytest.fixture(scope="module")
def predictions(backend: OnnxBackend) -> dict[str, Prediction]:
    """The prediction of each sample, by its name."""
    return {path.stem: predict_image(backend, path.read_bytes()) for path in SAMPLES}


@pytest.mark.parametrize("name", ["yellowstone_forest", "ordway_swisher_woodland", "soaproot_shrubland"])
def test_forests_of_another_camera_are_recognised(predictions: dict[str, Prediction], name: str) -> None:
    """The model is sure that these samples, twice as bright as the forests of the training data, show forest."""
    prediction = predictions[name]
    assert prediction.label == "forest"
    assert prediction.confidence > 0.9
    assert prediction.reason is None


def test_probabilities_stay_the_same(predictions: dict[str, Prediction]) -> None:
    """No update of decoder, runtime or arithmetic changes a recorded probability of a sample by more than 0.001."""
    golden = json.loads(GOLDEN.read_text())
    assert golden.keys() == predictions.keys()
    for name, prediction in predictions.items():
        assert prediction.probabilities == pytest.approx(golden[name], abs=0.001), name


def test_samples_are_aerial(predictions: dict[str, Prediction]) -> None:
    """The model accepts the samples, from four flights and cameras that training has not seen, as aerial images."""
    assert len(predictions) == 4
    assert all(each.reason is not AbstentionReason.NOT_AERIAL for each in predictions.values())


def test_probabilities_are_calibrated(predictions: dict[str, Prediction]) -> None:
    """Served probabilities are those of the graph, calibrated with the temperature of the manifest."""
    for prediction in predictions.values():
        temperature = prediction.model.confidence.temperature
        assert 0.3 < temperature < 1
        expected = calibrate(prediction.probabilities, temperature)
        assert prediction.calibrated == pytest.approx(expected)
        assert prediction.confidence > prediction.probabilities.max()


@pytest.mark.parametrize("category", CATEGORIES)
def test_images_that_are_not_aerial_are_rejected(backend: OnnxBackend, category: str) -> None:
    """The gate rejects at least 90 % of the generated images of each category, including kinds absent from the fit."""
    images = [image for image in list_generated(Role.TEST, 2, (256, 256)) if image.kind.category == category]
    gate = backend.info.confidence.abstention.gate
    assert gate is not None
    pooled = [backend.predict_pooled(image.make()[np.newaxis])[1][0] for image in images]
    assert np.mean([gate.score(features) < 0 for features in pooled]) >= CATEGORIES[category]


def test_an_unsure_prediction_is_marked(backend: OnnxBackend) -> None:
    """An aerial image whose confidence is below the manifest's minimum gets the reason LOW_CONFIDENCE."""
    rules = backend.info.confidence.abstention
    assert 0.5 < rules.min_confidence < 0.95
    score = rules.score(backend.predict_pooled(_read(backend, SAMPLES[0]))[1][0])
    assert rules.find_reason(score, rules.min_confidence - 0.01) is AbstentionReason.LOW_CONFIDENCE
    assert rules.find_reason(score, rules.min_confidence + 0.01) is None


def test_prediction_sets_contain_the_label(predictions: dict[str, Prediction]) -> None:
    """A 95 % set has the label and at most two other classes; a coverage that cannot be guaranteed has all classes."""
    for prediction in predictions.values():
        labels = [label for label, _ in prediction.find_set(0.95)]
        assert labels[0] == prediction.label
        assert len(labels) <= 3
        assert len(prediction.find_set(0.9999)) == len(prediction.model.classes)


def test_explanations_are_those_of_the_class(backend: OnnxBackend) -> None:
    """Grad-CAM maps are not negative, have the size of the feature maps, and differ between classes."""
    assert backend.head is not None
    _, features = backend.predict_with_features(_read(backend, SAMPLES[0]))
    maps = [compute_grad_cam(backend.head, features[0], index) for index in (0, 7)]
    assert all(each.shape == features.shape[1:3] for each in maps)
    assert all(each.min() >= 0 for each in maps)
    assert not np.allclose(maps[0], maps[1], atol=0.01)


def _read(backend: OnnxBackend, path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return decode_image(path.read_bytes(), backend.info.input_spec).pixels[np.newaxis]
