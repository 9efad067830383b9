from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.backends.base import ModelInfo
from model.backends.stub import StubBackend
from model.confidence.abstention import AbstentionRules, AerialGate
from model.confidence.model import ConfidenceModel
from model.confidence.prediction_sets import ConformalScores
from model.errors import DatasetError
from model.offline.changes import SIX_CHANGES
from model.offline.dataset import LabelledFiles, list_images, read_image, read_images
from model.offline.evaluate import (
    Evaluation,
    Outputs,
    average_six_changes,
    evaluate,
    predict_changed_images,
    predict_images,
)
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


@pytest.fixture
def two_classes() -> LabelledFiles:
    """Three images of the classes a, a, b."""
    return LabelledFiles((Path("1"), Path("2"), Path("3")), (0, 0, 1), ("a", "b"))


def describe(confidence: ConfidenceModel) -> ModelInfo:
    return ModelInfo("two", "1.0", "0" * 64, "stub", ("a", "b"), confidence=confidence)


# The third image is predicted wrongly; the second is the least aerial, the third the least certain.
OUTPUTS = Outputs(
    np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4]], np.float32), np.array([[2.0], [-1.0], [0.5]], np.float32)
)


def test_results_equal_those_of_a_single_batch(folder: Path) -> None:
    """Predicting on several threads gives the same results as predicting all images in one batch."""
    backend = StubBackend()
    files = list_images(folder, backend.info.classes)
    images = read_images(files, backend.info.input_spec)
    expected = compute_results(backend.predict(images.pixels), images.labels, files.classes)
    results = evaluate(predict_images(backend, files.paths, threads=4), files, backend.info).served
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
    files = list_images(folder / "relabelled", backend.info.classes)
    results = evaluate(predict_images(backend, files.paths), files, backend.info).served
    assert (results.n, results.accuracy, results.macro_f1) == (12, 1.0, 1.0)


def test_progress_counts_every_file(folder: Path) -> None:
    """The progress callback receives 1 to n."""
    backend = StubBackend()
    progress: list[int] = []
    predict_images(backend, list_images(folder).paths, progress.append, threads=4)
    assert progress == list(range(1, 13))


def test_labels_in_another_order_are_rejected(folder: Path) -> None:
    """Labels that are not indices into the model's classes raise an error instead of giving wrong results."""
    backend = StubBackend()
    files = list_images(folder)
    with pytest.raises(DatasetError, match="model's classes"):
        evaluate(predict_images(backend, files.paths), files, backend.info)


def test_calibrated_and_raw_probabilities_are_evaluated(two_classes: LabelledFiles) -> None:
    """A temperature of 0.5 squares the odds: 0.8 becomes 16/17; accuracy stays the same, loss and confidence do not."""
    evaluation = evaluate(OUTPUTS, two_classes, describe(ConfidenceModel(temperature=0.5)))
    odds = np.array([0.9 / 0.1, 0.8 / 0.2, 0.6 / 0.4]) ** 2
    squared = odds / (1 + odds)
    assert evaluation.served.confidence == pytest.approx(squared.mean(), rel=1e-5)
    expected_loss = -(np.log(squared[0]) + np.log(squared[1]) + np.log(1 - squared[2])) / 3
    assert evaluation.served.loss == pytest.approx(expected_loss, rel=1e-5)
    assert evaluation.served.ece == pytest.approx((1 - squared[0] + 1 - squared[1] + squared[2]) / 3, rel=1e-5)
    assert (evaluation.raw.confidence, evaluation.raw.ece) == pytest.approx((2.3 / 3, (0.1 + 0.2 + 0.6) / 3))
    assert evaluation.served.accuracy == evaluation.raw.accuracy == pytest.approx(2 / 3)


def test_model_without_a_temperature_has_equal_results(two_classes: LabelledFiles) -> None:
    """Without confidence members in the manifest, served and raw results are equal, and there are no others."""
    evaluation = evaluate(OUTPUTS, two_classes, describe(ConfidenceModel()), coverage=0.9)
    assert evaluation.served == evaluation.raw
    assert (evaluation.temperature, evaluation.abstention, evaluation.sets) == (1.0, None, None)


def test_abstentions_are_counted_by_reason(two_classes: LabelledFiles) -> None:
    """One image of three fails the gate, one the threshold; the remaining prediction is correct."""
    rules = AbstentionRules(AerialGate(np.ones(1, np.float32), 0.0), min_confidence=0.7)
    abstention = evaluate(OUTPUTS, two_classes, describe(ConfidenceModel(abstention=rules))).abstention
    assert abstention is not None
    assert abstention.share == pytest.approx(2 / 3)
    assert abstention.reasons == pytest.approx({"not_an_aerial_image": 1 / 3, "low_confidence": 1 / 3})
    assert abstention.selective_accuracy == 1.0


def test_threshold_applies_to_calibrated_probabilities(two_classes: LabelledFiles) -> None:
    """A maximum of 0.6 is above the threshold of 0.65 once a temperature of 0.5 has raised it to 9/13."""
    rules = AbstentionRules(min_confidence=0.65)
    for temperature, share in ((1.0, 1 / 3), (0.5, 0.0)):
        confidence = ConfidenceModel(temperature=temperature, abstention=rules)
        abstention = evaluate(OUTPUTS, two_classes, describe(confidence)).abstention
        assert abstention is not None
        assert abstention.share == pytest.approx(share)


def test_model_that_always_abstains_has_no_selective_accuracy(two_classes: LabelledFiles) -> None:
    """If the model abstains on all images, the selective accuracy is None."""
    rules = AbstentionRules(min_confidence=0.99)
    abstention = evaluate(OUTPUTS, two_classes, describe(ConfidenceModel(abstention=rules))).abstention
    assert abstention is not None
    assert (abstention.share, abstention.selective_accuracy) == (1.0, None)


def test_coverage_is_the_share_of_sets_with_the_true_class(two_classes: LabelledFiles) -> None:
    """With a limit of 0.85, {a}, {a, b} and {a, b} contain every true class; with 0.5, every set is {a}."""
    for scores, coverage, size in (([0.85] * 9, 1.0, 5 / 3), ([0.5] * 9, 2 / 3, 1.0)):
        confidence = ConfidenceModel(sets=ConformalScores(np.array(scores, np.float32)))
        sets = evaluate(OUTPUTS, two_classes, describe(confidence), coverage=0.8).sets
        assert sets is not None
        assert (sets.wanted, sets.coverage, sets.mean_size) == pytest.approx((0.8, coverage, size))


def test_robustness_is_the_mean_over_the_six_changes(two_classes: LabelledFiles) -> None:
    """The accuracy under the six changes is averaged, without the clean images and the coarsest resolution."""
    wrong = Outputs(OUTPUTS.probabilities[:, ::-1], OUTPUTS.pooled)
    info = describe(ConfidenceModel())
    evaluations: dict[str, Evaluation] = {
        name: evaluate(wrong if name in ("clean", "grey", "ground resolution x2") else OUTPUTS, two_classes, info)
        for name in ("clean", *SIX_CHANGES, "ground resolution x2")
    }
    assert average_six_changes(evaluations)["accuracy"] == pytest.approx((5 * 2 / 3 + 1 / 3) / 6)


def test_error_names_the_broken_file(folder: Path) -> None:
    """A file that cannot be decoded raises an error; it is not skipped."""
    (folder / "beach" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    backend = StubBackend()
    with pytest.raises(DatasetError, match=r"broken\.png"):
        predict_images(backend, list_images(folder, backend.info.classes).paths)


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
    """Each change is applied to the pixels that the model would get; progress counts the predictions."""
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
