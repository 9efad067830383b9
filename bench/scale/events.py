"""Discrete-event simulation: a clock, queues with servers, and locks."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

Act = Callable[[], None]


@dataclass
class Clock:
    """Simulated time in seconds, and the scheduled events."""

    now: float = 0.0
    _events: list[tuple[float, int, Act]] = field(default_factory=list)
    _numbers: count[int] = field(default_factory=count)  # simultaneous events run in order of scheduling

    def after(self, seconds: float, act: Act) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._numbers), act))

    def run(self, until: float) -> None:
        while self._events and self._events[0][0] <= until:
            self.now, _, act = heapq.heappop(self._events)
            act()
        self.now = until


class Station:
    """A number of servers with one queue, first come, first served."""

    def __init__(self, clock: Clock, servers: int) -> None:
        self._clock = clock
        self._servers = servers
        self._waiting: deque[tuple[float, Act]] = deque()
        self._busy = 0
        self.busy_s = 0.0

    @property
    def utilisation(self) -> float:
        """The busy share of the servers' time so far; work in progress counts in full."""
        return min(1.0, self.busy_s / (self._servers * self._clock.now))

    def serve(self, seconds: float, then: Act) -> None:
        """Work for `seconds` when a server is free, then call `then`."""
        if self._busy == self._servers:
            self._waiting.append((seconds, then))
            return
        self._busy += 1
        self._work(seconds, then)

    def _work(self, seconds: float, then: Act) -> None:
        def finish() -> None:
            if self._waiting:
                self._work(*self._waiting.popleft())
            else:
                self._busy -= 1
            then()

        self.busy_s += seconds
        self._clock.after(seconds, finish)


class Lock:
    """A row lock, which one transaction holds at a time."""

    def __init__(self) -> None:
        self._waiting: deque[Act] = deque()
        self._held = False

    def acquire(self, then: Act) -> None:
        if self._held:
            self._waiting.append(then)
        else:
            self._held = True
            then()

    def release(self) -> None:
        if self._waiting:
            self._waiting.popleft()()
        else:
            self._held = False
