from __future__ import annotations

import json
import math

import numpy as np
import pytest

from model.offline.metrics import compute_results

# Four images of the classes a, a, b, c, predicted as a, b, b, b; no image belongs to class d.
PROBABILITIES = np.array(
    [[0.7, 0.1, 0.1, 0.1], [0.4, 0.5, 0.1, 0.0], [0.2, 0.8, 0.0, 0.0], [0.0, 0.6, 0.4, 0.0]], np.float32
)
LABELS = np.array([0, 0, 1, 2])
CLASSES = ("a", "b", "c", "d")


def test_accuracy_is_the_share_of_correct_predictions() -> None:
    """Two of four predictions are correct, so the accuracy is 0.5."""
    results = compute_results(PROBABILITIES, LABELS, CLASSES)
    assert (results.n, results.accuracy) == (4, 0.5)


def test_confusion_matrix_has_the_true_classes_in_rows() -> None:
    """confusion[true][predicted] counts images."""
    assert compute_results(PROBABILITIES, LABELS, CLASSES).confusion == [
        [1, 1, 0, 0],
        [0, 1, 0, 0],
        [0, 1, 0, 0],
        [0] * 4,
    ]


def test_class_results_match_a_manual_calculation() -> None:
    """a: precision 1/1, recall 1/2, F1 2/3. b: precision 1/3, recall 1/1, F1 1/2. c and d: none correct."""
    results = compute_results(PROBABILITIES, LABELS, CLASSES).per_class
    assert (results["a"].precision, results["a"].recall, results["a"].support) == (1.0, 0.5, 2)
    assert results["a"].f1 == pytest.approx(2 / 3)
    assert results["b"].precision == pytest.approx(1 / 3)
    assert (results["b"].recall, results["b"].f1) == (1.0, 0.5)
    assert (results["c"].precision, results["c"].recall, results["c"].f1, results["c"].support) == (0.0, 0.0, 0.0, 1)
    assert results["d"].support == 0


def test_macro_f1_averages_over_classes_with_images() -> None:
    """(2/3 + 1/2 + 0) / 3: a class without images does not lower the mean."""
    assert compute_results(PROBABILITIES, LABELS, CLASSES).macro_f1 == pytest.approx((2 / 3 + 1 / 2) / 3)


def test_loss_is_the_mean_negative_log_of_the_true_class() -> None:
    """-(ln 0.7 + ln 0.4 + ln 0.8 + ln 0.4) / 4."""
    expected = -(math.log(0.7) + math.log(0.4) + math.log(0.8) + math.log(0.4)) / 4
    assert compute_results(PROBABILITIES, LABELS, CLASSES).loss == pytest.approx(expected, rel=1e-6)


def test_confidence_is_the_mean_of_the_largest_probability() -> None:
    """(0.7 + 0.5 + 0.8 + 0.6) / 4."""
    assert compute_results(PROBABILITIES, LABELS, CLASSES).confidence == pytest.approx(0.65)


def test_certain_but_wrong_prediction_has_a_finite_loss() -> None:
    """A probability of 0 for the true class counts as 1e-12."""
    results = compute_results(np.array([[1.0, 0.0]]), np.array([1]), ("a", "b"))
    assert results.loss == pytest.approx(-math.log(1e-12))


def test_perfect_predictions_have_perfect_results() -> None:
    """Correct and certain predictions have accuracy 1, macro F1 1, loss 0 and calibration error 0."""
    results = compute_results(np.eye(3), np.arange(3), ("a", "b", "c"))
    assert (results.accuracy, results.macro_f1, results.loss, results.ece) == (1.0, 1.0, 0.0, 0.0)


def test_results_can_be_written_as_json() -> None:
    """Results consist of plain numbers, lists and dictionaries."""
    results = compute_results(PROBABILITIES, LABELS, CLASSES)
    document = json.loads(json.dumps(results.as_dict()))
    assert document["per_class"]["a"]["support"] == 2
    assert document["accuracy"] == 0.5
