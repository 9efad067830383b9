"""Measure brightness and sharpness on a sample of an image's rows, cheaply enough for every prediction."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_ROW_STEP = 8
_GREEN = 1


class ImageStatistics(NamedTuple):
    """Brightness and sharpness, both in levels of 0..255.

    `brightness` is the mean of the three channels. `sharpness` is the mean absolute difference of neighbours in a row
    of the green channel: blur and darkness lower it, noise and fine texture raise it.
    """

    brightness: float
    sharpness: float


def measure_pixels(pixels: NDArray[np.uint8]) -> ImageStatistics:
    """Return the statistics of decoded pixels, uint8 [height, width, 3]; the sharpness of a single column is 0."""
    rows = pixels[::_ROW_STEP]
    green = np.ascontiguousarray(rows[:, :, _GREEN])
    left, right = green[:, :-1], green[:, 1:]
    differences = np.maximum(left, right) - np.minimum(left, right)  # stays in 8 bits
    return ImageStatistics(_average(rows), _average(differences) if differences.size else 0.0)


def _average(levels: NDArray[np.uint8]) -> float:
    """Return the mean; several times faster than NumPy's, which converts every level to a float."""
    return int(levels.sum(dtype=np.uint32)) / levels.size
