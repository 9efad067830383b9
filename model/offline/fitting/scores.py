"""Conformal scores of held-out images, and what the prediction sets of those scores achieve."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model.confidence.prediction_sets import ConformalScores


def compute_scores(calibrated: NDArray[np.float32], labels: NDArray[np.integer]) -> ConformalScores:
    """Return 1 minus the calibrated probability of the true class of each image, ascending.

    `calibrated` is float32 [n, classes], `labels` [n]. The coverage of the sets holds for images that are exchangeable
    with these: images of the same kind, neither changed nor from another sensor.
    """
    return ConformalScores(np.sort(1 - calibrated[np.arange(len(labels)), labels]))


def measure_sets(
    sets: ConformalScores, calibrated: NDArray[np.float32], labels: NDArray[np.integer], coverage: float
) -> tuple[float, float]:
    """Return the share of images whose set contains the true class, and the mean number of labels in a set."""
    found = [sets.find_labels(row, coverage) for row in calibrated]
    covered = [int(label) in labels_of_set for label, labels_of_set in zip(labels, found, strict=True)]
    return float(np.mean(covered)), float(np.mean([len(labels_of_set) for labels_of_set in found]))
