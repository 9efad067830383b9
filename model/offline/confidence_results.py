"""Results of what a model says about its confidence: how often it abstains, and how good its prediction sets are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.confidence.abstention import AbstentionReason, AbstentionRules
from model.confidence.prediction_sets import ConformalScores


@dataclass(frozen=True, slots=True)
class AbstentionResults:
    """The share of the images for which the model abstains, and for which of the reasons.

    `selective_accuracy` is the accuracy on the other images; None if there is no other image.
    """

    share: float
    reasons: dict[str, float]
    selective_accuracy: float | None


@dataclass(frozen=True, slots=True)
class PredictionSetResults:
    """How many of the prediction sets contain the true class, and their mean number of labels.

    `wanted` is the coverage for which the sets were made, `coverage` the share of sets with the true class.
    """

    wanted: float
    coverage: float
    mean_size: float


def compute_abstention(
    rules: AbstentionRules, pooled: NDArray[np.float32], calibrated: NDArray[np.float32], labels: NDArray[np.integer]
) -> AbstentionResults:
    """Apply the rules to pooled features, float32 [n, channels], and calibrated probabilities, float32 [n, classes]."""
    confidence = calibrated.max(axis=1)
    found = [rules.find_reason(rules.score(row), float(value)) for row, value in zip(pooled, confidence, strict=True)]
    predicted = np.array([reason is None for reason in found])
    correct = (calibrated.argmax(axis=1) == labels)[predicted]
    return AbstentionResults(
        share=float(1 - predicted.mean()),
        reasons={reason.value: found.count(reason) / len(found) for reason in AbstentionReason},
        selective_accuracy=float(correct.mean()) if correct.size else None,
    )


def compute_prediction_sets(
    scores: ConformalScores, calibrated: NDArray[np.float32], labels: NDArray[np.integer], coverage: float
) -> PredictionSetResults:
    """Make the set of each row of calibrated probabilities, float32 [n, classes], for that coverage, in (0, 1)."""
    sets = [scores.find_labels(row, coverage) for row in calibrated]
    hits = [int(label) in chosen for label, chosen in zip(labels, sets, strict=True)]
    return PredictionSetResults(coverage, float(np.mean(hits)), float(np.mean([len(chosen) for chosen in sets])))
