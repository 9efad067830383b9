"""What the shipped model says about the samples, and about generated images that its gate was not fitted on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from model.backends.onnx import OnnxBackend
from model.confidence.abstention import AbstentionReason
from model.confidence.calibration import calibrate
from model.imaging.decode import decode_image
from model.offline.evaluate import Outputs, predict_images
from model.offline.negatives.catalogue import list_generated
from model.offline.roles import Role


@pytest.fixture(scope="module")
def backend(artefact_folder: Path) -> Iterator[OnnxBackend]:
    with closing(OnnxBackend(artefact_folder)) as backend:
        yield backend


@pytest.fixture(scope="module")
def sample_outputs(backend: OnnxBackend, samples: list[Path]) -> Outputs:
    images = [decode_image(path.read_bytes(), backend.info.input_spec).pixels for path in samples]
    return predict_images(backend, images)


def test_generated_images_are_not_aerial(backend: OnnxBackend) -> None:
    """Of documents, screenshots, noise and plain surfaces, each with other seeds and kinds, 90 % are refused."""
    generated = list_generated(Role.TEST, 2, backend.info.input_spec.size)
    outputs = predict_images(backend, [image.make() for image in generated])
    rules = backend.info.confidence.abstention
    refused = [rules.find_reason(pooled, 1.0) is AbstentionReason.NOT_AERIAL for pooled in outputs.pooled]
    assert np.mean(refused) >= 0.9


def test_samples_are_aerial(backend: OnnxBackend, sample_outputs: Outputs) -> None:
    """No sample, of four flights and cameras that training has not seen, is called not aerial."""
    rules = backend.info.confidence.abstention
    assert [rules.find_reason(pooled, 1.0) for pooled in sample_outputs.pooled] == [None] * 4


def test_sets_of_the_forests_contain_forest(backend: OnnxBackend, samples: list[Path], sample_outputs: Outputs) -> None:
    """The label of each forest is forest, and so is one label of its prediction set."""
    confidence, forest = backend.info.confidence, backend.info.classes.index("forest")
    calibrated = calibrate(sample_outputs.probabilities, confidence.temperature)
    assert confidence.sets is not None
    found = {
        path.name: (int(row.argmax()), forest in confidence.sets.find_labels(row, 0.95))
        for path, row in zip(samples, calibrated, strict=True)
    }
    del found["yellowstone_scene.jpg"]  # half of it is a meadow
    assert set(found.values()) == {(forest, True)}
