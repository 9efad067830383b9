"""Measures what this process uses: processor time, memory over time, and bytes sent."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

from msgspec import Struct

from monitoring.chains.timestamps import format_timestamp, get_hour
from monitoring.cost.formula import BYTES_IN_GB
from monitoring.machine.memory import proportional_bytes
from monitoring.machine.network import read_sent_bytes

_HOUR = timedelta(hours=1)


class Reading(Struct, frozen=True):
    """Processor time since the process started, memory now, and bytes sent since the machine started."""

    processor_s: float
    memory_bytes: int
    sent_bytes: int


class HourResources(Struct, frozen=True):
    """What was used in an hour, such as 2026-11-03T09."""

    hour: str
    processor_s: float
    memory_gb_s: float
    sent_bytes: int


def read_resources() -> Reading:
    return Reading(time.process_time(), proportional_bytes(), read_sent_bytes())


class ResourceMeter:
    """Measures from its creation on, and processor time from the start of the process.

    `clock` returns seconds since 1970, and `elapsed` monotonic seconds, so that durations do not depend on corrections
    of the clock. Each of the gateway's `processes` reads the bytes sent by the whole container, and counts an equal
    part of them.
    """

    def __init__(
        self,
        processes: int = 1,
        clock: Callable[[], float] = time.time,
        elapsed: Callable[[], float] = time.monotonic,
        read: Callable[[], Reading] = read_resources,
    ) -> None:
        self._processes = processes
        self._clock = clock
        self._elapsed = elapsed
        self._read = read
        self._last_elapsed, first = elapsed(), read()
        self._last = Reading(0.0, first.memory_bytes, first.sent_bytes)  # 0.0 also counts the start-up's processor time

    def measure(self) -> Sequence[HourResources]:
        """Return what was used since the last call, divided among the hours in proportion to time."""
        at, elapsed, now = self._clock(), self._elapsed(), self._read()
        duration_s = elapsed - self._last_elapsed
        processor_s = now.processor_s - self._last.processor_s
        memory_gb_s = (now.memory_bytes + self._last.memory_bytes) / 2 / BYTES_IN_GB * duration_s
        sent = max(0, now.sent_bytes - self._last.sent_bytes) / self._processes
        shares = list(_spread(at - duration_s, at))
        self._last_elapsed, self._last = elapsed, now
        return [
            HourResources(hour, processor_s * share, memory_gb_s * share, round(sent * share)) for hour, share in shares
        ]


def _spread(start: float, end: float) -> Iterator[tuple[str, float]]:
    """Yield each hour between two times, and its share of the interval; one hour if no time has passed."""
    last, moment = datetime.fromtimestamp(end, UTC), datetime.fromtimestamp(start, UTC)
    if moment >= last:
        yield get_hour(format_timestamp(last)), 1.0
        return
    whole = last - moment
    while moment < last:
        following = min(last, moment.replace(minute=0, second=0, microsecond=0) + _HOUR)
        yield get_hour(format_timestamp(moment)), (following - moment) / whole
        moment = following
