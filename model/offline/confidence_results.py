"""Measure how often a model abstains, and the quality of its prediction sets."""

from __future__ import annotations

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from model.confidence.abstention import AbstentionReason, AbstentionRules
from model.confidence.prediction_sets import ConformalScores


class AbstentionResults(Struct, frozen=True):
    """The share of images for which the model abstains, in total and for each reason.

    `selective_accuracy` is the accuracy on the other images; None if there are none.
    """

    share: float
    reasons: dict[str, float]
    selective_accuracy: float | None


class PredictionSetResults(Struct, frozen=True):
    """The quality of prediction sets. `wanted` is the requested coverage.

    `coverage` is the share of sets that contain the true class, and `mean_size` their mean number of labels.
    """

    wanted: float
    coverage: float
    mean_size: float


def compute_abstention(
    rules: AbstentionRules, pooled: NDArray[np.float32], calibrated: NDArray[np.float32], labels: NDArray[np.integer]
) -> AbstentionResults:
    """Apply the rules to pooled features, float32 [n, channels], and calibrated probabilities, float32 [n, classes]."""
    confidence = calibrated.max(axis=1)
    reasons = [rules.find_reason(rules.score(row), float(value)) for row, value in zip(pooled, confidence, strict=True)]
    predicted = np.array([reason is None for reason in reasons])
    correct = (calibrated.argmax(axis=1) == labels)[predicted]
    return AbstentionResults(
        share=float(1 - predicted.mean()),
        reasons={reason.value: reasons.count(reason) / len(reasons) for reason in AbstentionReason},
        selective_accuracy=float(correct.mean()) if correct.size else None,
    )


def compute_prediction_sets(
    scores: ConformalScores,
    probabilities: NDArray[np.float32],
    calibrated: NDArray[np.float32],
    labels: NDArray[np.integer],
    coverage: float,
) -> PredictionSetResults:
    """Make the set of each row of raw and calibrated probabilities, float32 [n, classes], for `coverage`, in (0, 1)."""
    rows = zip(probabilities, calibrated, strict=True)
    sets = [scores.find_labels(raw_row, row, coverage) for raw_row, row in rows]
    hits = [int(label) in chosen for label, chosen in zip(labels, sets, strict=True)]
    return PredictionSetResults(coverage, float(np.mean(hits)), float(np.mean([len(chosen) for chosen in sets])))
