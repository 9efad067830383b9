from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.backends.stub import StubBackend
from model.errors import DatasetError
from model.offline.dataset import list_images, read_image, read_images
from model.offline.evaluate import evaluate, predict_changed_images, predict_images
from model.offline.metrics import compute_results


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve noise images in three of the model's classes."""
    generator = np.random.default_rng(3)
    for name in ("beach", "forest", "river"):
        (tmp_path / name).mkdir()
        for number in range(4):
            image = Image.fromarray(generator.integers(0, 256, (8, 8, 3), np.uint8))
            image.save(tmp_path / name / f"{number}.png")
    return tmp_path


def test_results_equal_those_of_a_single_batch(folder: Path) -> None:
    """Predicting on several threads gives the same results as predicting all images in one batch."""
    backend = StubBackend()
    files = list_images(folder, backend.info.classes)
    images = read_images(files, backend.info.input_spec)
    expected = compute_results(backend.predict(images.pixels), images.labels, files.classes)
    results = evaluate(backend, files, threads=4)
    assert (results.n, results.accuracy, results.confusion) == (12, expected.accuracy, expected.confusion)
    assert results.loss == pytest.approx(expected.loss, rel=1e-5)


def test_correct_labels_give_an_accuracy_of_one(folder: Path) -> None:
    """A data set labelled by the model itself has an accuracy and macro F1 of 1, even with absent classes."""
    backend = StubBackend()
    for path in list_images(folder).paths:
        index = int(backend.predict(read_image(path, backend.info.input_spec).pixels[np.newaxis]).argmax())
        target = folder / "relabelled" / backend.info.classes[index]
        target.mkdir(parents=True, exist_ok=True)
        path.rename(target / f"{path.parent.name}{path.name}")
    results = evaluate(backend, list_images(folder / "relabelled", backend.info.classes))
    assert (results.n, results.accuracy, results.macro_f1) == (12, 1.0, 1.0)


def test_progress_counts_every_file(folder: Path) -> None:
    """The progress callback receives 1 to n."""
    backend = StubBackend()
    progress: list[int] = []
    evaluate(backend, list_images(folder, backend.info.classes), progress.append, threads=4)
    assert progress == list(range(1, 13))


def test_labels_in_another_order_are_rejected(folder: Path) -> None:
    """Labels that are not indices into the model's classes raise an error instead of giving wrong results."""
    with pytest.raises(DatasetError, match="model's classes"):
        evaluate(StubBackend(), list_images(folder))


def test_error_names_the_broken_file(folder: Path) -> None:
    """A file that cannot be decoded raises an error; it is not skipped."""
    (folder / "beach" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    backend = StubBackend()
    with pytest.raises(DatasetError, match=r"broken\.png"):
        evaluate(backend, list_images(folder, backend.info.classes))


def test_outputs_have_the_order_of_the_images(folder: Path) -> None:
    """Files, and the same images as pixels, give the outputs of one batch, in order, on several threads."""
    backend = StubBackend()
    files = list_images(folder, backend.info.classes)
    pixels = read_images(files, backend.info.input_spec).pixels
    probabilities, pooled = backend.predict_pooled(pixels)
    for images in (files.paths, list(pixels)):
        outputs = predict_images(backend, images, threads=4)
        np.testing.assert_allclose(outputs.probabilities, probabilities, rtol=1e-5)
        np.testing.assert_allclose(outputs.pooled, pooled, rtol=1e-5)


def test_outputs_under_each_change_are_those_of_changed_images(folder: Path) -> None:
    """Each change is applied to the pixels as the model would get them; progress counts the predictions."""
    backend = StubBackend()
    files = list_images(folder, backend.info.classes)
    pixels = read_images(files, backend.info.input_spec).pixels
    progress: list[int] = []
    changes = {"same": lambda image: image, "negative": lambda image: 255 - image}
    outputs = predict_changed_images(backend, files.paths, changes, progress.append, threads=2)
    assert list(outputs) == ["same", "negative"]
    np.testing.assert_allclose(outputs["same"].probabilities, backend.predict(pixels), rtol=1e-5)
    np.testing.assert_allclose(outputs["negative"].probabilities, backend.predict(255 - pixels), rtol=1e-5)
    assert progress == list(range(2, 25, 2))
