from __future__ import annotations

import json
import math

import numpy as np
import pytest

from model.offline.metrics import expected_calibration_error, measure

# Four images of the classes a, a, b, c; predicted a, b, b, b; nobody is of class d.
PROBABILITIES = np.array(
    [[0.7, 0.1, 0.1, 0.1], [0.4, 0.5, 0.1, 0.0], [0.2, 0.8, 0.0, 0.0], [0.0, 0.6, 0.4, 0.0]], np.float32
)
LABELS = np.array([0, 0, 1, 2])
CLASSES = ("a", "b", "c", "d")


def test_accuracy_is_the_share_of_right_answers() -> None:
    """Two of the four answers are right."""
    results = measure(PROBABILITIES, LABELS, CLASSES)
    assert (results.n, results.accuracy) == (4, 0.5)


def test_the_confusion_matrix_has_the_truth_in_rows() -> None:
    """confusion[true][predicted] counts images."""
    assert measure(PROBABILITIES, LABELS, CLASSES).confusion == [[1, 1, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0], [0] * 4]


def test_class_figures_match_a_calculation_by_hand() -> None:
    """a: precision 1/1, recall 1/2, F1 2/3. b: precision 1/3, recall 1/1, F1 1/2. c and d: nothing right."""
    results = measure(PROBABILITIES, LABELS, CLASSES).per_class
    assert (results["a"].precision, results["a"].recall, results["a"].support) == (1.0, 0.5, 2)
    assert results["a"].f1 == pytest.approx(2 / 3)
    assert results["b"].precision == pytest.approx(1 / 3)
    assert (results["b"].recall, results["b"].f1) == (1.0, 0.5)
    assert (results["c"].precision, results["c"].recall, results["c"].f1, results["c"].support) == (0.0, 0.0, 0.0, 1)
    assert results["d"].support == 0


def test_macro_f1_averages_the_classes_that_occur() -> None:
    """(2/3 + 1/2 + 0) / 3: a class without images does not pull the mean down."""
    assert measure(PROBABILITIES, LABELS, CLASSES).macro_f1 == pytest.approx((2 / 3 + 1 / 2) / 3)


def test_loss_is_the_mean_negative_log_of_the_true_class() -> None:
    """-(ln 0.7 + ln 0.4 + ln 0.8 + ln 0.4) / 4."""
    expected = -(math.log(0.7) + math.log(0.4) + math.log(0.8) + math.log(0.4)) / 4
    assert measure(PROBABILITIES, LABELS, CLASSES).loss == pytest.approx(expected, rel=1e-6)


def test_a_certain_wrong_answer_has_a_finite_loss() -> None:
    """A probability of 0 for the true class counts as 1e-12."""
    results = measure(np.array([[1.0, 0.0]]), np.array([1]), ("a", "b"))
    assert results.loss == pytest.approx(-math.log(1e-12))


def test_calibration_error_matches_a_calculation_by_hand() -> None:
    """Two answers near 0.95, one right: gap 0.45. Two near 0.5, both right: gap 0.5. Mean: 0.475."""
    confidence = np.array([0.95, 0.95, 0.50, 0.50])
    correct = np.array([True, False, True, True])
    assert expected_calibration_error(confidence, correct) == pytest.approx(0.475)


def test_full_confidence_falls_into_the_last_bin() -> None:
    """A confidence of exactly 1 is counted, with the others above 14/15."""
    assert expected_calibration_error(np.array([1.0, 0.98]), np.array([True, False])) == pytest.approx(0.49)


def test_perfect_answers_have_perfect_figures() -> None:
    """All right and certain: every figure is at its end of the scale."""
    results = measure(np.eye(3), np.arange(3), ("a", "b", "c"))
    assert (results.accuracy, results.macro_f1, results.loss, results.ece) == (1.0, 1.0, 0.0, 0.0)


def test_figures_can_be_written_as_json() -> None:
    """Figures consist of plain numbers, lists and dictionaries."""
    results = measure(PROBABILITIES, LABELS, CLASSES)
    document = json.loads(json.dumps(results.as_dict()))
    assert document["per_class"]["a"]["support"] == 2
    assert document["accuracy"] == 0.5
