"""Finds jobs that have run for so long that they will probably never end (ADR 0017)."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

J = TypeVar("J", bound=Hashable)

_MAX_INTERVAL_S = 0.25
_MIN_CHECKS = 4  # within `limit_s`


class Watchdog(Generic[J]):
    """Call `find_stuck` every `interval_s` seconds with the running jobs.

    It counts checks instead of reading a clock, so that no job counts as stuck because the whole process was stopped.
    """

    def __init__(self, limit_s: float) -> None:
        self.interval_s = min(_MAX_INTERVAL_S, limit_s / _MIN_CHECKS)
        self._allowed_checks = math.ceil(limit_s / self.interval_s)
        self._checks: dict[J, int] = {}

    def find_stuck(self, running: Iterable[J]) -> list[J]:
        """Return the jobs that have just exceeded the limit; each job is returned once."""
        self._checks = {job: self._checks.get(job, 0) + 1 for job in running}
        return [job for job, checks in self._checks.items() if checks == self._allowed_checks + 1]
