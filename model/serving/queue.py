"""Who may wait for a prediction and who is next: bounded by time, in turn, strict in a crowd (ADR 0009)."""

from __future__ import annotations

import math
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field

from model.backends.base import Backend
from model.errors import Overloaded
from model.serving.fair_queue import FairQueue
from model.serving.prediction import Prediction

_EWMA_WEIGHT = 0.2
_FIRST_GUESS_S = 0.05
# Of those who are turned away for each one that is answered: then a worker that is free finds work at once.
_FLOOD = 4
_LONGEST_RETRY_S = 20.0


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """How many may wait, and for how many seconds by the estimate of the moment.

    Once somebody had to be turned away it may be more than a burst: for `strict_s` seconds, and as long as more are
    turned away than answered, the wait is bounded by half the time of one prediction. Those who are let in stay quick.
    In a flood nobody waits but who has nothing here yet: a free worker finds work at once.
    """

    places: int = 64
    seconds: float = 2.0
    strict_s: float = 1.0


@dataclass(slots=True, eq=False)
class Job:
    """One caller's place; `deadline` is in seconds of time.monotonic()."""

    data: bytes
    backend: Backend
    caller: str
    deadline: float
    measured_s: float
    queued_at: float = field(default_factory=time.perf_counter)
    answer: Future[Prediction] = field(default_factory=Future)


class PredictionQueue:
    """The jobs before `workers` threads. The event loop joins and leaves, the threads take and finish."""

    def __init__(self, workers: int, limits: QueueLimits) -> None:
        self._workers = workers
        self._limits = limits
        self._lines: FairQueue[Job] = FairQueue()
        self._lock = threading.Lock()
        # The worker that was at work last is called first: its session's weights may still be in a cache.
        self._idle: list[threading.Condition] = []
        self._running = 0
        self._of: Counter[str] = Counter()  # how many of each caller wait or run
        self._closing = False
        self._job_s, self._learned = _FIRST_GUESS_S, False
        self._strict_until = 0.0
        self._answered = self._refused = 0

    @property
    def waiting(self) -> int:
        """How many jobs no worker is free for."""
        return max(0, self._running + len(self._lines) - self._workers)

    @property
    def busy(self) -> bool:
        """Whether a newcomer would have to wait."""
        return self._running + len(self._lines) >= self._workers

    def check_capacity(self, caller: str) -> None:
        """Spare both sides the reading of an image that would be turned away. Raises Overloaded."""
        with self._telling() as told, self._lock:
            if self._crowded(caller) and not self._outlasted_by(caller):
                raise self._turned_away(told)

    def join(self, job: Job) -> None:
        """Queue the job, perhaps in place of the last one of whoever sends most. Raises Overloaded, RuntimeError."""
        with self._telling() as told, self._lock:
            if self._closing:
                raise RuntimeError("the service is closed")
            if self.busy and time.monotonic() + self._wait_s(self.waiting) + self._job_s > job.deadline:
                raise self._overloaded()  # its own haste is no sign of a crowd
            if self._crowded(job.caller):
                if not self._outlasted_by(job.caller):
                    raise self._turned_away(told)
                told.append(self._sent_away())
            self._lines.join(job.caller, job)
            self._of[job.caller] += 1
            if self._idle:
                self._idle.pop().notify()

    def leave(self, job: Job) -> None:
        """Give up the place of a job that was cancelled; one that runs keeps it until it is done."""
        job.data = b""
        with self._lock:
            if self._lines.leave(job.caller, job):
                self._gone(job)

    def worker(self) -> threading.Condition:
        """By which one worker thread is called: what it gives to `next`."""
        return threading.Condition(self._lock)

    def next(self, called: threading.Condition) -> Job | None:
        """Wait for work. None once the queue is closed and nobody waits."""
        with self._lock:
            while not self._lines:
                if self._closing:
                    return None
                self._idle.append(called)
                called.wait()
            self._running += 1
            return self._lines.next()

    def done(self, job: Job) -> None:
        """Free the place of a job that ran, before anybody hears of its answer."""
        with self._lock:
            self._running -= 1
            self._answered += 1
            self._gone(job)

    def learn(self, seconds: float) -> None:
        """How long one job took."""
        with self._lock:
            # The first one says more than the guess before it.
            self._job_s += (_EWMA_WEIGHT if self._learned else 1) * (seconds - self._job_s)
            self._learned = True

    def close(self) -> None:
        """Take nobody in any more, and call the workers: they finish what was admitted."""
        with self._lock:
            self._closing = True
            for worker in self._idle:
                worker.notify()

    @staticmethod
    @contextmanager
    def _telling() -> Iterator[list[tuple[Job, Overloaded]]]:
        """Tells those who were sent away, once the lock is free."""
        told: list[tuple[Job, Overloaded]] = []
        try:
            yield told
        finally:
            for job, error in told:
                job.data = b""
                if job.answer.set_running_or_notify_cancel():
                    job.answer.set_exception(error)

    def _sent_away(self) -> tuple[Job, Overloaded]:
        """The last one of whoever has most here, and what to tell it."""
        job = self._lines.evict_last(self._lines.heaviest(self._of))
        self._gone(job)
        return job, self._overloaded()

    def _gone(self, job: Job) -> None:
        self._of[job.caller] -= 1
        if not self._of[job.caller]:
            del self._of[job.caller]

    def _crowded(self, caller: str) -> bool:
        """Whether one more of the caller's would have to wait for too long."""
        if not self.busy:
            return False
        return self._wait_s(self.waiting) > self._bound_s(caller) or self.waiting >= self._limits.places

    def _bound_s(self, caller: str) -> float:
        if not self._strict(time.monotonic()):
            return self._limits.seconds
        flood = self._refused > _FLOOD * (self._answered + 1)
        return 0.0 if flood and self._of[caller] else self._strict_wait_s

    def _strict(self, now: float) -> bool:
        if now < self._strict_until:
            return True
        just_ended = now < self._strict_until + self._limits.strict_s
        overrun, self._answered, self._refused = self._refused > self._answered, 0, 0
        if just_ended and overrun:
            self._strict_until = now + self._limits.strict_s
        return just_ended and overrun

    def _outlasted_by(self, caller: str) -> bool:
        """Whether somebody who waits has more here than the caller would have."""
        return len(self._lines) > 0 and self._of[self._lines.heaviest(self._of)] > self._of[caller] + 1

    def _turned_away(self, told: list[tuple[Job, Overloaded]]) -> Overloaded:
        """Count a refusal. Half as many as wait are no burst: then those go, too, who would not be let in any more."""
        now = time.monotonic()
        if not self._strict(now):
            self._strict_until = now + self._limits.strict_s
        self._refused += 1
        if self._refused > len(self._lines) / 2:
            while self._lines and self._wait_s(self.waiting - 1) > self._strict_wait_s:
                told.append(self._sent_away())
        return self._overloaded()

    def _overloaded(self) -> Overloaded:
        # In a crowd one of so many is let in: who comes back at once is turned away again, and all at once are a crowd.
        crowd = self._refused / (self._answered + 1) - 1 if time.monotonic() < self._strict_until else 0.0
        spread_s = min(max(crowd, 0.0), _LONGEST_RETRY_S) * random.uniform(0.5, 1.5)  # noqa: S311  (no secret)
        retry_after_s = max(1, math.ceil(self._wait_s(self.waiting) + spread_s))
        return Overloaded("More is asked for than can be answered now. Try again later.", retry_after_s=retry_after_s)

    @property
    def _strict_wait_s(self) -> float:
        return self._job_s / 2

    def _wait_s(self, ahead: int) -> float:
        """How long one waits, in seconds, that so many wait before."""
        return (ahead + 0.5) / self._workers * self._job_s
