"""Requests that got no prediction, on their way into the ledger: a flood of them cannot fill it.

Each is an entry of its own, until a burst of them has used the allowance up: then equal ones (one caller's, with one
code) share an entry that says how many it stands for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

BURST = 200
REFILL_PER_S = 10.0

Facts = dict[str, Any]


class Refusals:
    """What waits to be written. `clock` tells seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waiting: dict[object, Facts] = {}
        self._allowance = float(BURST)
        self._since = clock()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, facts: Facts) -> None:
        now = self._clock()
        self._allowance = min(BURST, self._allowance + (now - self._since) * REFILL_PER_S)
        self._since = now
        if self._allowance >= 1:
            self._allowance -= 1
            self._waiting[object()] = facts
            return
        self._add_up(facts)

    def take(self) -> Sequence[Facts]:
        """All of them; they wait no longer."""
        taken, self._waiting = list(self._waiting.values()), {}
        return taken

    def put_back(self, taken: Sequence[Facts]) -> None:
        """They could not be written: they wait on, added up."""
        for facts in taken:
            self._add_up(facts)

    def _add_up(self, facts: Facts) -> None:
        kind = facts["principal"], facts["key"], facts["code"]
        if kind in self._waiting:
            facts = {**self._waiting[kind], "count": self._waiting[kind]["count"] + facts["count"]}
        self._waiting[kind] = facts
