"""Logistic regression with an L2 penalty, for a few thousand images with about a thousand features."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_ITERATIONS = 30
_GRADIENTS = 60
_TOLERANCE = 1e-6

Array = NDArray[np.float64]


def fit_logistic(features: Array, targets: Array, shares: Array, strength: float) -> Array:
    """Return weights and bias, [channels + 1], by Newton's method with step halving. The bias has no penalty.

    `features` is [n, channels] with a deviation of about 1, `targets` is 0 or 1, and `shares` adds up to 1. The penalty
    is `strength` / 2 times the mean square of the weights.
    """
    inputs = np.concatenate([features, np.ones((len(features), 1))], axis=1)
    penalty = np.full(inputs.shape[1], strength / features.shape[1])
    penalty[-1] = 1e-9
    signs = 2 * targets - 1

    def loss(solution: Array) -> float:
        return float(shares @ np.logaddexp(0, -signs * (inputs @ solution)) + 0.5 * penalty @ solution**2)

    solution = np.zeros(inputs.shape[1])
    current = loss(solution)
    for _ in range(_ITERATIONS):
        chances = 0.5 * (1 + np.tanh(0.5 * (inputs @ solution)))
        gradient = inputs.T @ (shares * (chances - targets)) + penalty * solution
        step = _solve(inputs, shares * chances * (1 - chances), penalty, gradient)
        while loss(solution - step) > current and np.abs(step).max() > 1e-9:
            step /= 2
        solution = solution - step
        previous, current = current, loss(solution)
        if previous - current < _TOLERANCE:
            break
    return solution


def _solve(
    inputs: Array,
    curvature: Array,
    penalty: Array,
    right: Array,
) -> Array:
    """Solve (inputs' diag(curvature) inputs + diag(penalty)) x = right approximately, by conjugate gradients."""
    solution = np.zeros_like(right)
    residual, direction = right.copy(), right.copy()
    size = float(residual @ residual)
    target = 1e-6 * size
    for _ in range(_GRADIENTS):
        if size <= target:
            break
        image = inputs.T @ (curvature * (inputs @ direction)) + penalty * direction
        length = size / float(direction @ image)
        solution += length * direction
        residual -= length * image
        size, earlier = float(residual @ residual), size
        direction = residual + (size / earlier) * direction
    return solution
