"""Counting the comparisons of a candidate with production."""

from __future__ import annotations

import json
from typing import Any

import pytest

from model.canary.evidence import (
    Evidence,
    Metric,
    Outcome,
    Tally,
    compare_on_different_images,
    compare_on_same_image,
    compare_with_label,
)

FOREST = Outcome(class_index=8, duration_s=0.020)
SLOW_FOREST = Outcome(class_index=8, duration_s=0.026)
HARBOUR = Outcome(class_index=10, duration_s=0.020)
FAILURE = Outcome(class_index=None, duration_s=0.001)
WORSE, SAME, BETTER = Tally(worse=1), Tally(same=1), Tally(better=1)


@pytest.mark.parametrize(
    ("candidate", "production", "expected"),
    [
        (FOREST, FOREST, {Metric.DISAGREEMENT: SAME, Metric.ERROR_RATE: SAME, Metric.LATENCY: SAME}),
        (HARBOUR, FOREST, {Metric.DISAGREEMENT: WORSE, Metric.ERROR_RATE: SAME, Metric.LATENCY: SAME}),
        (SLOW_FOREST, FOREST, {Metric.DISAGREEMENT: SAME, Metric.ERROR_RATE: SAME, Metric.LATENCY: WORSE}),
        (FOREST, SLOW_FOREST, {Metric.DISAGREEMENT: SAME, Metric.ERROR_RATE: SAME, Metric.LATENCY: SAME}),
        (FAILURE, FOREST, {Metric.ERROR_RATE: WORSE}),
        (FOREST, FAILURE, {Metric.ERROR_RATE: BETTER}),
        (FAILURE, FAILURE, {Metric.ERROR_RATE: SAME}),
    ],
)
def test_same_image_is_compared_by_class_failure_and_time(
    candidate: Outcome, production: Outcome, expected: dict[Metric, Tally]
) -> None:
    """Predictions of one image are compared by class, error and latency, or by error alone if one of them failed."""
    assert compare_on_same_image(candidate, production) == Evidence(expected)


def test_different_images_are_not_compared_by_class() -> None:
    """Predictions of different images are compared by error and latency, not by class."""
    expected = {Metric.ERROR_RATE: SAME, Metric.LATENCY: WORSE}
    assert compare_on_different_images(SLOW_FOREST, HARBOUR) == Evidence(expected)


@pytest.mark.parametrize(
    ("candidate_correct", "production_correct", "tally"),
    [(True, True, SAME), (False, False, SAME), (False, True, WORSE), (True, False, BETTER)],
)
def test_labels_count_where_only_one_model_is_right(
    candidate_correct: bool, production_correct: bool, tally: Tally
) -> None:
    """A label counts for or against the candidate only if exactly one of the models is right."""
    evidence = compare_with_label(candidate_correct=candidate_correct, production_correct=production_correct)
    assert evidence == Evidence({Metric.ACCURACY: tally})


def test_counts_of_workers_are_added() -> None:
    """The sum of two workers' evidence, in either order, equals that of one worker with all comparisons."""
    pairs = [(FOREST, FOREST), (HARBOUR, FOREST), (FAILURE, FOREST), (SLOW_FOREST, FOREST), (FOREST, FAILURE)]
    all_of_them = sum((compare_on_same_image(*pair) for pair in pairs), Evidence())
    first = sum((compare_on_same_image(*pair) for pair in pairs[::2]), Evidence())
    second = sum((compare_on_same_image(*pair) for pair in pairs[1::2]), Evidence())
    assert first + second == second + first == all_of_them
    assert all_of_them.get(Metric.ERROR_RATE) == Tally(worse=1, same=3, better=1)


def test_evidence_survives_a_restart() -> None:
    """Evidence does not change when it is written as JSON and read again."""
    evidence = Evidence({Metric.DISAGREEMENT: Tally(3, 97), Metric.ACCURACY: Tally(2, 30, 1)})
    text = json.dumps(evidence.to_document())
    assert Evidence.from_document(json.loads(text)) == evidence
    assert Evidence.from_document({}) == Evidence()


@pytest.mark.parametrize(
    "document",
    [
        {"speed": [1, 2, 3]},
        {"accuracy": [1, 2]},
        {"accuracy": [1, -2, 0]},
        {"accuracy": [1, 2, True]},
        {"accuracy": [1, 2, 0.5]},
        {"accuracy": "123"},
        {"disagreement": [0, 0, 1]},
    ],
    ids=json.dumps,
)
def test_damaged_evidence_is_rejected(document: dict[str, Any]) -> None:
    """Unknown metrics, anything but three counts, and a "better" count for a metric without one raise ValueError."""
    with pytest.raises(ValueError, match=r"speed|accuracy|disagreement"):
        Evidence.from_document(document)
