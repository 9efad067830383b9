"""The properties of predictions that are observed and tested for drift."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from enum import StrEnum

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray


class Metric(StrEnum):
    CLASS_MIX = "class_mix"
    CONFIDENCE = "confidence"
    GATE_SCORE = "gate_score"
    BRIGHTNESS = "brightness"
    SHARPNESS = "sharpness"
    IMAGE_SIZE = "image_size"


MEASURES: tuple[Metric, ...] = tuple(metric for metric in Metric if metric is not Metric.CLASS_MIX)
"""The metrics that are a number for each prediction. The image size is the side of a square of equal area."""

DECIMALS: Mapping[Metric, int] = {
    Metric.CONFIDENCE: 7,  # confidences differ in the fifth decimal
    Metric.GATE_SCORE: 7,
    Metric.BRIGHTNESS: 2,  # as the ledger records it
    Metric.SHARPNESS: 2,  # as the ledger records it
    Metric.IMAGE_SIZE: 7,
}
"""The decimals to which references and predictions are rounded alike, so that equal values have equal ranks."""


def measure(
    *, confidence: float, gate_score: float, brightness: float, sharpness: float, width: int, height: int
) -> tuple[float, ...]:
    """Return the rounded measures of one prediction in the order of MEASURES; NaN is an unknown value."""
    values = confidence, gate_score, brightness, sharpness, math.sqrt(width * height)
    return tuple(round(value, DECIMALS[metric]) for metric, value in zip(MEASURES, values, strict=True))


class Change(StrEnum):
    """How a measure differs from the reference. (For the class mix, the change is the class that became more frequent.)

    BOTH: some values are lower and others higher, and neither direction alone explains the difference.
    """

    HIGHER = "higher"
    LOWER = "lower"
    BOTH = "lower_and_higher"


class Observations(Struct, frozen=True, eq=False):
    """The properties of n predictions, in their order.

    `classes` are indices of the reference's classes, int64 [n], -1 for another class. `measures` is float64
    [n, len(MEASURES)], NaN where unknown. `times` are seconds since 1970, float64 [n].
    """

    classes: NDArray[np.int64]
    measures: NDArray[np.float64]
    times: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.classes)

    def select(self, indices: Sequence[int]) -> Observations:
        chosen = list(indices)
        return Observations(self.classes[chosen], self.measures[chosen], self.times[chosen])
