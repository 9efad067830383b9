"""Fit the temperature of a classifier (Guo et al., "On Calibration of Modern Neural Networks", 2017)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from model.confidence.calibration import calibrate

_RANGE = (0.1, 10.0)
_STEPS = 40
_GOLDEN = (np.sqrt(5) - 1) / 2


def fit_temperature(
    probabilities: NDArray[np.float32], labels: NDArray[np.integer], weights: NDArray[np.floating]
) -> float:
    """Return the temperature, from 0.1 to 10, with the smallest weighted log loss.

    `probabilities` are the model's own, float32 [n, classes]; `labels` and `weights` are [n]. The log loss has a
    single minimum, because it is convex in 1 / temperature.
    """

    def loss(log_temperature: float) -> float:
        return compute_log_loss(calibrate(probabilities, float(np.exp(log_temperature))), labels, weights)

    return round(float(np.exp(_find_minimum(loss, float(np.log(_RANGE[0])), float(np.log(_RANGE[1]))))), 4)


def compute_log_loss(
    probabilities: NDArray[np.float32], labels: NDArray[np.integer], weights: NDArray[np.floating]
) -> float:
    """Return the weighted mean of -log(probability of the true class)."""
    true_class = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float(np.average(-np.log(np.maximum(true_class, 1e-12)), weights=weights))


def _find_minimum(function: Callable[[float], float], low: float, high: float) -> float:
    """Find the minimum of a unimodal function by golden-section search."""
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = function(left), function(right)
    for _ in range(_STEPS):
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = function(right)
    return (low + high) / 2
