"""The drift state of one caller: about 1 kB, stored as text in a database."""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import Self

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from model.drift.metrics import MEASURES, Metric, Observations
from model.sequential.changes import STAKE_SHARES

_MEMORY = 100  # the recent means cover about this many predictions
_DECAY = 1 - 1 / _MEMORY
_LONGEST_MINUTES = 65_535
_STAKES = len(STAKE_SHARES)


class RecentMeans(Struct, eq=False):
    """Means of recent predictions, weighted by age, as float64 sums and weights.

    `classes` is [classes + 1]; its last element is the total weight. `measures` is [2, measures]: sums and weights.
    `positions` is [2, measures], sums of the positions in the reference and of their absolute values.
    """

    classes: NDArray[np.float64]
    measures: NDArray[np.float64]
    positions: NDArray[np.float64]

    def add(self, observations: Observations, positions: NDArray[np.float64]) -> None:
        """Add observations. `positions`, [n, measures], are -1 below the reference, 0 in its middle, 1 above it."""
        n = len(observations)
        decay, weights = _DECAY**n, _DECAY ** np.arange(n - 1, -1, -1)
        known = observations.classes >= 0
        self.classes *= decay
        self.classes[:-1] += np.bincount(observations.classes[known], weights[known], minlength=len(self.classes) - 1)
        self.classes[-1] += weights.sum()
        is_known = ~np.isnan(observations.measures)
        self.measures *= decay
        self.measures[0] += weights @ np.where(is_known, observations.measures, 0.0)
        self.measures[1] += weights @ is_known
        known_positions = np.nan_to_num(positions)
        self.positions *= decay
        self.positions += weights @ known_positions, weights @ np.abs(known_positions)

    def get_share(self, index: int) -> float | None:
        """Return the recent share of a class; None before the first prediction."""
        return float(self.classes[index] / self.classes[-1]) if self.classes[-1] > 0 else None

    def get_measure(self, metric: Metric) -> float | None:
        """Return the recent mean of a measure; None if it is unknown."""
        total, weight = self.measures[:, MEASURES.index(metric)]
        return float(total / weight) if weight > 0 else None

    def get_position(self, metric: Metric) -> tuple[float, float]:
        """Return the recent means of the position of a known measure and of its absolute value."""
        index = MEASURES.index(metric)
        position, distance = (self.positions[:, index] / self.measures[1, index]).tolist()
        return position, distance


class DriftState(Struct, eq=False):
    """`wealth` is in logarithms; `since` is when it was last reset. Both are float64 [tests, stakes].

    `quiet` is int32 [metrics]: the number of predictions since the last alarm, or -1 without a drift. `seen_at` is the
    time of the last prediction. Times are in seconds since 1970.
    """

    wealth: NDArray[np.float64]
    since: NDArray[np.float64]
    quiet: NDArray[np.int32]
    recent: RecentMeans
    predictions: int = 0
    seen_at: float = 0.0

    @classmethod
    def begin(cls, tests: int, classes: int) -> Self:
        """Return the state before the first prediction."""
        recent = RecentMeans(np.zeros(classes + 1), np.zeros((2, len(MEASURES))), np.zeros((2, len(MEASURES))))
        shape = tests, _STAKES
        return cls(np.zeros(shape), np.zeros(shape), np.full(len(Metric), -1, np.int32), recent)

    def encode(self) -> str:
        """Encode all but `predictions` and `seen_at`. `since` is rounded down to the minute, at most 45 days ago.

        Minutes are counted from 1970, not from `seen_at`, so that `since` does not change when it is encoded again.
        """
        minutes = np.clip(self.seen_at // 60 - self.since // 60, 0, _LONGEST_MINUTES)
        parts = (
            self.wealth.astype("<f4"),
            minutes.astype("<u2"),
            self.quiet.astype("<i4"),
            self.recent.classes.astype("<f4"),
            self.recent.measures.astype("<f4"),
            self.recent.positions.astype("<f4"),
        )
        return b64encode(b"".join(part.tobytes() for part in parts)).decode()

    @classmethod
    def decode(cls, text: str, tests: int, classes: int, predictions: int, seen_at: float) -> Self:
        """Read what `encode` wrote. Raises ValueError if the shape differs."""
        data, offset = b64decode(text, validate=True), 0

        def read(dtype: str, *shape: int) -> NDArray[np.generic]:
            nonlocal offset
            part = np.frombuffer(data, dtype, int(np.prod(shape)), offset).reshape(shape)
            offset += part.nbytes
            return part

        wealth = read("<f4", tests, _STAKES).astype(np.float64)
        since = 60.0 * (seen_at // 60 - read("<u2", tests, _STAKES).astype(np.float64))
        quiet = read("<i4", len(Metric)).astype(np.int32)
        recent = RecentMeans(
            read("<f4", classes + 1).astype(np.float64),
            read("<f4", 2, len(MEASURES)).astype(np.float64),
            read("<f4", 2, len(MEASURES)).astype(np.float64),
        )
        if offset != len(data):
            raise ValueError("the state has another number of tests")
        return cls(wealth, since, quiet, recent, predictions, seen_at)
