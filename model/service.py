"""Predictions for an event loop: decoding, hashing and inference happen in worker threads, behind a bounded queue."""

from __future__ import annotations

import asyncio
import hashlib
import math
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from model.backends import Backend, ModelInfo
from model.budget import Room
from model.errors import DeadlineExceeded, Overloaded
from model.images import ImageNeeds, decode_image, has_quick_header, image_needs
from model.lines import FairLines

_EWMA_WEIGHT = 0.2
# Of the threads that infer: on a full machine whoever reads requests, or refuses them, goes first; passwords go last.
_NICENESS = 3
_FIRST_GUESS_S = 0.05
# Of those who are turned away for each one that is answered: then a worker that is free finds work at once.
_FLOOD = 4
_LONGEST_RETRY_S = 20.0

# Told the image's number of pixels before it is decoded; what it raises ends the prediction.
Admit = Callable[[int], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """The image as it was sent: SHA-256 in hex, format (JPEG, PNG, WEBP, TIFF), size in pixels and in bytes."""

    sha256: str
    format: str
    width: int
    height: int
    bytes: int


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """One answer. `probabilities` is float32 [classes]; `timing` is seconds by stage: queue, decode, infer."""

    probabilities: NDArray[np.float32]
    index: int
    label: str
    confidence: float
    model: ModelInfo
    image: ImageFacts
    timing: Mapping[str, float]

    def top(self, k: int) -> list[tuple[str, float]]:
        """The `k` likeliest labels with their probabilities, the likeliest first."""
        order = np.argsort(-self.probabilities, kind="stable")[:k]
        return [(self.model.classes[index], float(self.probabilities[index])) for index in order]


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
class _Job:
    """One caller's place; `deadline` is in seconds of time.monotonic()."""

    data: bytes
    caller: str
    deadline: float
    measured_s: float
    queued_at: float = field(default_factory=time.perf_counter)
    answer: Future[Prediction] = field(default_factory=Future)


class PredictionService:
    """At most `workers` predictions at once, a bounded queue before them, and every caller in turn.

    `on_stage(stage, seconds)` is called from worker threads when a stage ends, also when it ends in an error.
    """

    def __init__(
        self, backend: Backend, *, workers: int, limits: QueueLimits, on_stage: Callable[[str, float], None]
    ) -> None:
        self._backend = backend
        self._limits = limits
        self._on_stage = on_stage
        self._lines: FairLines[_Job] = FairLines()
        self._lock = threading.Lock()
        # The worker that was at work last is called first: its session's weights may still be in a cache.
        self._idle: list[threading.Condition] = []
        self._running = 0
        self._of: Counter[str] = Counter()  # how many of each caller wait or run
        self._closing = False
        self._job_s, self._learned = _FIRST_GUESS_S, False
        self._strict_until = 0.0
        self._answered = self._refused = 0
        self._threads = [threading.Thread(target=self._serve, name=f"predict_{index}") for index in range(workers)]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """How many jobs no worker is free for."""
        return max(0, self._running + len(self._lines) - len(self._threads))

    @property
    def busy(self) -> bool:
        """Whether a newcomer would have to wait."""
        return self._running + len(self._lines) >= len(self._threads)

    async def predict(
        self,
        data: bytes,
        admit: Admit | None = None,
        *,
        room: Room | None = None,
        caller: str = "",
        deadline: float = math.inf,
    ) -> Prediction:
        """Classify the image that `data` encodes; `admit` comes between the reading of its header and its decoding.

        `room` is made as large as the decoding needs. `deadline` is in seconds of time.monotonic(). Who is cancelled
        while queued gives its place and its bytes back; one that runs is finished unheard. Raises Overloaded,
        MemoryFull, DeadlineExceeded, a subclass of ImageRefused, what `admit` raises, and RuntimeError after `close`.
        """
        self.check_room(caller)
        started, measured_s = time.perf_counter(), 0.0
        if admit is not None or room is not None:
            needs = await self.measure(data)
            measured_s = time.perf_counter() - started
            if room is not None:
                await room.resize(needs.bytes, meanwhile=len(data))
            if admit is not None:
                await admit(needs.pixels)
        job = _Job(data, caller, deadline, measured_s)
        self._join(job)
        try:
            return await asyncio.wrap_future(job.answer)
        except asyncio.CancelledError:
            if job.answer.cancel():
                self._leave(job)
            elif room is not None:
                room.hold_until_done(job.answer)
            raise

    async def measure(self, data: bytes) -> ImageNeeds:
        """The pixels and the memory that a prediction would take. Raises a subclass of ImageRefused."""
        started = time.perf_counter()
        try:
            return image_needs(data) if has_quick_header(data) else await asyncio.to_thread(image_needs, data)
        except BaseException:
            self._on_stage("decode", time.perf_counter() - started)
            raise

    def check_room(self, caller: str) -> None:
        """Spare both sides the reading of an image that would be turned away. Raises Overloaded."""
        with self._telling() as told, self._lock:
            if self._crowded(caller) and not self._outlasted_by(caller):
                raise self._turned_away(told)

    def close(self) -> None:
        """Finish what was admitted, then end the threads. Blocks for as long; the back end stays open."""
        with self._lock:
            self._closing = True
            for worker in self._idle:
                worker.notify()
        for thread in self._threads:
            thread.join()

    def _join(self, job: _Job) -> None:
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

    @staticmethod
    @contextmanager
    def _telling() -> Iterator[list[tuple[_Job, Overloaded]]]:
        """Tells those who were sent away, once the lock is free."""
        told: list[tuple[_Job, Overloaded]] = []
        try:
            yield told
        finally:
            for job, error in told:
                job.data = b""
                if job.answer.set_running_or_notify_cancel():
                    job.answer.set_exception(error)

    def _sent_away(self) -> tuple[_Job, Overloaded]:
        """The last one of whoever has most here, and what to tell it."""
        job = self._lines.send_away_last(self._lines.greediest(self._of))
        self._gone(job)
        return job, self._overloaded()

    def _leave(self, job: _Job) -> None:
        job.data = b""
        with self._lock:
            if self._lines.leave(job.caller, job):
                self._gone(job)

    def _gone(self, job: _Job) -> None:
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
        return len(self._lines) > 0 and self._of[self._lines.greediest(self._of)] > self._of[caller] + 1

    def _turned_away(self, told: list[tuple[_Job, Overloaded]]) -> Overloaded:
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
        return (ahead + 0.5) / len(self._threads) * self._job_s

    def _serve(self) -> None:
        """What a worker thread does until the service is closed and nobody waits."""
        if sys.platform == "linux":  # where a thread has a niceness of its own
            with suppress(OSError):  # forbidden: then all threads go alike
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        called = threading.Condition(self._lock)
        while (job := self._next(called)) is not None:
            tell = self._tried(job) if job.answer.set_running_or_notify_cancel() else None
            job.data = b""
            # The place is free before anybody hears of the answer.
            with self._lock:
                self._running -= 1
                self._answered += 1
                self._gone(job)
            if tell is not None:
                tell()

    def _next(self, called: threading.Condition) -> _Job | None:
        with self._lock:
            while not self._lines:
                if self._closing:
                    return None
                self._idle.append(called)
                called.wait()
            self._running += 1
            return self._lines.next()

    def _tried(self, job: _Job) -> Callable[[], None]:
        """Do the work; returns what tells the caller of it."""
        try:
            return partial(job.answer.set_result, self._work(job))
        except BaseException as error:  # the caller's, whatever it is
            return partial(job.answer.set_exception, error)

    def _work(self, job: _Job) -> Prediction:
        data, started = job.data, time.perf_counter()
        timing: dict[str, float] = {}
        self._report("queue", started - job.queued_at, timing)
        if time.monotonic() > job.deadline:
            raise DeadlineExceeded
        with self._stage("decode", timing, job.measured_s):
            decoded = decode_image(data)
            facts = ImageFacts(
                hashlib.sha256(data).hexdigest(), decoded.format, decoded.width, decoded.height, len(data)
            )
        with self._stage("infer", timing):
            probabilities = self._backend.predict(decoded.pixels[np.newaxis])[0]
        self._learn(time.perf_counter() - started)  # a broken image's time tells nothing of the next one's
        index = int(probabilities.argmax())
        info = self._backend.info
        return Prediction(probabilities, index, info.classes[index], float(probabilities[index]), info, facts, timing)

    @contextmanager
    def _stage(self, stage: str, timing: dict[str, float], spent_s: float = 0.0) -> Iterator[None]:
        started = time.perf_counter() - spent_s
        try:
            yield
        finally:
            self._report(stage, time.perf_counter() - started, timing)

    def _report(self, stage: str, seconds: float, timing: dict[str, float]) -> None:
        timing[stage] = seconds
        self._on_stage(stage, seconds)

    def _learn(self, seconds: float) -> None:
        with self._lock:
            # The first one says more than the guess before it.
            self._job_s += (_EWMA_WEIGHT if self._learned else 1) * (seconds - self._job_s)
            self._learned = True
