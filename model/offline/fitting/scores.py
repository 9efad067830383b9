"""Conformal scores of held-out images."""

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
