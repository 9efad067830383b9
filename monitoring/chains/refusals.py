"""Aggregates rejected requests until they are recorded, so that any number of them takes little memory and few rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from itertools import islice
from typing import Generic, TypeVar

BURST = 200  # rejections that can be recorded in detail at once
REFILL_PER_S = 10.0

V = TypeVar("V")


class RefusalAggregator(Generic[V]):
    """Collects rejections until they are written, and merges those with equal keys.

    Each waiting rejection spends one token of a budget of BURST, which refills at REFILL_PER_S. While the budget lasts,
    rejections wait under their `exact_key`. Afterwards `coarsen` replaces each new one by a less detailed one and its
    key, under which many are merged. `merge(first, second)` adds up two rejections with the same key.
    """

    def __init__(
        self,
        exact_key: Callable[[V], Hashable],
        coarsen: Callable[[V], tuple[Hashable, V]],
        merge: Callable[[V, V], V],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._exact_key = exact_key
        self._coarsen = coarsen
        self._merge = merge
        self._clock = clock
        self._waiting: dict[Hashable, V] = {}
        self._in_flight: dict[Hashable, V] = {}
        self._tokens = float(BURST)
        self._refilled_at = clock()

    @property
    def waiting(self) -> list[V]:
        return list(self._waiting.values())

    def add(self, refusal: V) -> None:
        key = self._exact_key(refusal)
        if key not in self._waiting and not self._has_budget():
            key, refusal = self._coarsen(refusal)
        if key not in self._waiting:
            # Coarse rejections may overdraw the budget, but by no more than it refills within seconds.
            self._tokens = max(self._tokens - 1, -BURST)
        self._insert(key, refusal)

    def take(self, limit: int | None = None) -> list[V]:
        """Return the oldest waiting rejections, at most `limit`, to be written; `confirm` or `put_back` must follow."""
        taken = list(islice(self._waiting, limit))
        self._in_flight = {key: self._waiting.pop(key) for key in taken}
        return list(self._in_flight.values())

    def confirm(self) -> None:
        """Drop the rejections that were taken, now that they are written."""
        self._in_flight = {}

    def put_back(self) -> None:
        """Queue again the rejections that `take` returned, because they could not be written."""
        newer, self._waiting, self._in_flight = self._waiting, self._in_flight, {}
        for key, refusal in newer.items():
            self._insert(key, refusal)

    def _insert(self, key: Hashable, refusal: V) -> None:
        self._waiting[key] = self._merge(self._waiting[key], refusal) if key in self._waiting else refusal

    def _has_budget(self) -> bool:
        # Unwritten rejections keep their tokens, so that at most BURST of them wait in detail while writing fails.
        limit = BURST - len(self._waiting) - len(self._in_flight)
        now = self._clock()
        self._tokens = min(self._tokens + (now - self._refilled_at) * REFILL_PER_S, limit)
        self._refilled_at = now
        return self._tokens >= 1
