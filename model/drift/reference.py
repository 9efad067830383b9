"""The reference: the distribution of classes and measures on the images that the model was evaluated on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from model.drift.metrics import DECIMALS, MEASURES, Metric, Observations
from model.signing.documents import parse_number

_QUANTILES = 101
_DECIMALS = 7  # of shares and means
MIN_IMAGES = 50


class MeasureReference(Struct, frozen=True):
    """The distribution of one measure: its `mean`, and 101 quantiles from the smallest to the largest value."""

    mean: float
    quantiles: tuple[float, ...]

    def rank(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the share of the reference below each value, with equal values counted half; NaN stays NaN."""
        below = np.searchsorted(self.quantiles, values, "left")
        through = np.searchsorted(self.quantiles, values, "right")
        ranks: NDArray[np.float64] = np.where(np.isnan(values), np.nan, (below + through) / (2 * len(self.quantiles)))
        return ranks

    @property
    def spread(self) -> float:
        """Twice the mean distance of the ranks from their middle: one half, or less if many values are equal."""
        return float(np.abs(2 * self.rank(np.asarray(self.quantiles)) - 1).mean())


class Reference(Struct, frozen=True):
    """`shares` are the shares of the predicted classes, in the order of `classes`. Unknown measures are missing."""

    images: int
    classes: tuple[str, ...]
    shares: tuple[float, ...]
    measures: Mapping[Metric, MeasureReference]

    def to_document(self) -> dict[str, Any]:
        """Return the reference for JSON."""
        return {
            "images": self.images,
            "classes": dict(zip(self.classes, self.shares, strict=True)),
            "measures": {
                metric.value: {"mean": measure.mean, "quantiles": list(measure.quantiles)}
                for metric, measure in self.measures.items()
            },
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """Read what `to_document` wrote. Raises ValueError, TypeError, KeyError, AttributeError."""
        images, classes = document["images"], document["classes"]
        if type(images) is not int or images < 1 or not classes:
            raise ValueError("the reference for drift has no images or no classes")
        shares = tuple(parse_number(share) for share in classes.values())
        if any(not 0 <= share <= 1 for share in shares):
            raise ValueError("a share of a class is not in 0..1")
        measures = {Metric(name): _parse_measure(Metric(name), each) for name, each in document["measures"].items()}
        return cls(images, tuple(classes), shares, measures)


def build_reference(observations: Observations, classes: Sequence[str]) -> Reference:
    """Build the reference from observations, without measures that have NaN. Raises ValueError for under 50 images."""
    n = len(observations)
    if n < MIN_IMAGES:
        raise ValueError(f"a reference for drift needs at least {MIN_IMAGES} images, not {n}")
    counts = np.bincount(observations.classes, minlength=len(classes))
    measures = {
        metric: _build_measure(metric, values)
        for metric, values in zip(MEASURES, observations.measures.T, strict=True)
        if not np.isnan(values).any()
    }
    return Reference(n, tuple(classes), tuple(round(count / n, _DECIMALS) for count in counts.tolist()), measures)


def _build_measure(metric: Metric, values: NDArray[np.float64]) -> MeasureReference:
    # Use values that occurred, not averages of two, because many images have exactly the same size.
    quantiles = np.quantile(values, np.linspace(0, 1, _QUANTILES), method="nearest")
    return MeasureReference(round(float(values.mean()), _DECIMALS), _round_quantiles(metric, quantiles.tolist()))


def _parse_measure(metric: Metric, document: Mapping[str, Any]) -> MeasureReference:
    if metric not in MEASURES:
        raise ValueError(f"{metric} is not a measure")
    quantiles = [parse_number(value) for value in document["quantiles"]]
    if not quantiles or quantiles != sorted(quantiles):
        raise ValueError(f"the quantiles of {metric} are not in ascending order")
    return MeasureReference(parse_number(document["mean"]), _round_quantiles(metric, quantiles))


def _round_quantiles(metric: Metric, quantiles: Sequence[float]) -> tuple[float, ...]:
    """Round as `measure` does. Files may have more decimals, because an earlier release wrote seven for all."""
    return tuple(round(value, DECIMALS[metric]) for value in quantiles)
