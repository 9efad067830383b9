"""The queue between the event loop and the worker threads. `OverloadPolicy` decides who may wait (ADR 0009)."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from model.backends.base import Backend
from model.errors import Overloaded
from model.serving.fair_queue import FairQueue
from model.serving.overload_policy import (
    CallerLoad,
    LoadHistory,
    LoadSnapshot,
    OverloadPolicy,
    QueueLimits,
    compute_retry_after_s,
)
from model.serving.prediction import Prediction

_EWMA_WEIGHT = 0.2
_INITIAL_JOB_S = 0.05


@dataclass(slots=True, eq=False)
class Job:
    """One image to classify with `backend`. `deadline` is in seconds of the queue's clock."""

    data: bytes
    backend: Backend
    caller: str
    deadline: float
    measured_s: float
    queued_at: float = field(default_factory=time.perf_counter)
    result: Future[Prediction] = field(default_factory=Future)


class PredictionQueue:
    """Jobs for `workers` threads. The event loop submits and cancels jobs, the threads take and finish them."""

    def __init__(self, workers: int, limits: QueueLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self._workers = workers
        self._policy = OverloadPolicy(limits)
        self._clock = clock
        self._lock = threading.Lock()
        self._queued: FairQueue[Job] = FairQueue()
        self._running = 0
        self._jobs_by_caller: Counter[str] = Counter()  # running and queued; callers without jobs are absent
        # Last in, first out: the model's weights may still be in the cache of the worker that was idle last.
        self._idle_workers: list[threading.Condition] = []
        self._job_s, self._job_s_measured = _INITIAL_JOB_S, False
        self._history = LoadHistory()
        self._closing = False

    @property
    def waiting(self) -> int:
        """The number of jobs for which no worker is free."""
        return max(0, self._running + len(self._queued) - self._workers)

    @property
    def busy(self) -> bool:
        """Whether a new job would have to wait."""
        return self._running + len(self._queued) >= self._workers

    def check_capacity(self, caller: str) -> None:
        """Reject a request before its image is read. Raises Overloaded."""
        with self._fail_evicted() as evicted, self._lock:
            decision = self._policy.decide(self._take_snapshot(), CallerLoad(self._jobs_by_caller[caller]))
            self._history = decision.history
            if not decision.accepted:
                evicted.extend(self._evict(decision.evictions))
                raise self._make_overloaded()

    def submit(self, job: Job) -> None:
        """Queue the job, perhaps in place of another caller's. Raises Overloaded, and RuntimeError after `close`."""
        with self._fail_evicted() as evicted, self._lock:
            if self._closing:
                raise RuntimeError("the service is closed")
            caller = CallerLoad(self._jobs_by_caller[job.caller], job.deadline)
            decision = self._policy.decide(self._take_snapshot(), caller)
            self._history = decision.history
            evicted.extend(self._evict(decision.evictions))
            if not decision.accepted:
                raise self._make_overloaded()
            self._queued.push(job.caller, job)
            self._jobs_by_caller[job.caller] += 1
            if self._idle_workers:
                self._idle_workers.pop().notify()

    def cancel(self, job: Job) -> None:
        """Free the slot and the bytes of a queued job. The slot of a running job is freed when it finishes."""
        job.data = b""
        with self._lock:
            if self._queued.remove(job.caller, job):
                self._discount(job)

    def register_worker(self) -> threading.Condition:
        """Return the condition that wakes one worker thread, to be passed to `take`."""
        return threading.Condition(self._lock)

    def take(self, wakeup: threading.Condition) -> Job | None:
        """Wait for a job. Returns None when the queue is closed and empty."""
        with self._lock:
            while not self._queued:
                if self._closing:
                    return None
                self._idle_workers.append(wakeup)
                wakeup.wait()
            self._running += 1
            return self._queued.pop()

    def finish(self, job: Job) -> None:
        """Free the slot of a job that ran. Call this before the caller gets the result, so that it finds the slot."""
        with self._lock:
            self._running -= 1
            self._history = replace(self._history, completed=self._history.completed + 1)
            self._discount(job)

    def record_duration(self, seconds: float) -> None:
        """Update the estimated duration of a job. The first measurement replaces the initial guess."""
        with self._lock:
            weight = _EWMA_WEIGHT if self._job_s_measured else 1
            self._job_s += weight * (seconds - self._job_s)
            self._job_s_measured = True

    def close(self) -> None:
        """Accept no more jobs, and wake the idle workers so that they end once the queue is empty."""
        with self._lock:
            self._closing = True
            for worker in self._idle_workers:
                worker.notify()

    def _take_snapshot(self) -> LoadSnapshot:
        largest = self._queued.find_largest(self._jobs_by_caller) if self._queued else None
        return LoadSnapshot(
            now=self._clock(),
            workers=self._workers,
            running=self._running,
            queued=len(self._queued),
            job_s=self._job_s,
            largest_caller_jobs=0 if largest is None else self._jobs_by_caller[largest],
            history=self._history,
        )

    def _evict(self, count: int) -> list[tuple[Job, Overloaded]]:
        """Remove the newest job of the caller with the most jobs, `count` times."""
        evicted = []
        for _ in range(count):
            job = self._queued.evict_last(self._queued.find_largest(self._jobs_by_caller))
            self._discount(job)
            evicted.append((job, self._make_overloaded()))
        return evicted

    @staticmethod
    @contextmanager
    def _fail_evicted() -> Iterator[list[tuple[Job, Overloaded]]]:
        """Deliver the errors of evicted jobs once the lock is released."""
        evicted: list[tuple[Job, Overloaded]] = []
        try:
            yield evicted
        finally:
            for job, error in evicted:
                job.data = b""
                if job.result.set_running_or_notify_cancel():
                    job.result.set_exception(error)

    def _discount(self, job: Job) -> None:
        self._jobs_by_caller[job.caller] -= 1
        if not self._jobs_by_caller[job.caller]:
            del self._jobs_by_caller[job.caller]

    def _make_overloaded(self) -> Overloaded:
        jitter = random.uniform(0.5, 1.5)  # noqa: S311  (not a secret)
        retry_after_s = compute_retry_after_s(self._take_snapshot(), jitter)
        return Overloaded("The server is overloaded. Try again later.", retry_after_s=retry_after_s)
