"""How well confidence agrees with accuracy: the bins of a reliability diagram, and the expected calibration error.

The bins have equal mass, as in the adaptive calibration error of Nixon et al., "Measuring Calibration in Deep
Learning" (2019), here of the predicted class alone: the images, in ascending order of the largest probability, are cut
into 15 bins whose sizes differ by at most one. The error is the sum over the bins of |mean confidence - accuracy|,
weighted by the share of the images in the bin. Images of equal confidence all count with their common accuracy, so
that their order does not matter where a border of a bin runs through them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_BINS = 15


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """The mean confidence and the accuracy of `n` images."""

    n: int
    confidence: float
    accuracy: float


def make_bins(confidence: NDArray[np.floating], correct: NDArray[np.bool_]) -> list[ReliabilityBin]:
    """Return the bins in ascending order of confidence; with less than 15 images, one for each image.

    `confidence` is the largest probability of each image, float [n], and `correct` whether that class is the true one.
    """
    exact = confidence.astype(np.float64)
    _, group, sizes = np.unique(exact, return_inverse=True, return_counts=True)
    accuracy = (np.bincount(group, weights=correct) / sizes)[group]
    bins = np.array_split(np.argsort(exact, kind="stable"), min(_BINS, len(exact)))
    return [ReliabilityBin(len(each), float(exact[each].mean()), float(accuracy[each].mean())) for each in bins]


def expected_calibration_error(confidence: NDArray[np.floating], correct: NDArray[np.bool_]) -> float:
    """Return the mean gap between confidence and accuracy over the bins, weighted by their images."""
    bins = make_bins(confidence, correct)
    return sum(each.n * abs(each.confidence - each.accuracy) for each in bins) / len(confidence)
