"""Measure how well confidence agrees with accuracy: reliability diagrams, and the expected calibration error.

The bins have equal mass, as in the adaptive calibration error of Nixon et al., "Measuring Calibration in Deep
Learning" (2019), but only for the predicted class: the images are sorted by their largest probability and divided into
15 bins whose sizes differ by at most one. The error is the sum over the bins of |mean confidence - accuracy|, weighted
by the share of images in the bin. Each image of a group with equal confidence gets the mean accuracy of the group, so
that the result does not depend on their order if they are divided between bins.
"""

from __future__ import annotations

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

_BINS = 15


class ReliabilityBin(Struct, frozen=True):
    """The mean confidence and the accuracy of `n` images."""

    n: int
    confidence: float
    accuracy: float


def make_bins(confidence: NDArray[np.floating], correct: NDArray[np.bool_]) -> list[ReliabilityBin]:
    """Return the bins in ascending order of confidence; with fewer than 15 images, one bin for each image.

    `confidence` is the largest probability of each image, float [n]; `correct` says whether that class is the true one.
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
