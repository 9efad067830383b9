"""The queue between the event loop and the worker threads. `OverloadPolicy` decides who may wait (ADR 0009)."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from msgspec import Struct, field
from msgspec.structs import replace

from model.errors import ModelError, Overloaded
from model.serving.fair_queue import FairQueue
from model.serving.overload_policy import (
    CallerLoad,
    LoadHistory,
    LoadSnapshot,
    LoadState,
    OverloadPolicy,
    QueueLimits,
    compute_retry_after_s,
    get_load_state,
)
from model.serving.sources import ImageSource

T = TypeVar("T")
# Called, usually by a worker thread, with the name of a stage that has ended and its duration in seconds.
OnStage = Callable[[str, float], object]

_EWMA_WEIGHT = 0.2
_INITIAL_JOB_S = 0.05


class Job(Struct, Generic[T], eq=False):
    """Work on the image `data` in a worker thread: to read its header, or to classify it if `is_prediction`.

    `deadline` is in seconds of the queue's clock. `timeout` ends the wait of the caller on its event loop. `stage` is
    the current stage: queue (not started), decode, infer or explain. `on_stage` is called with each stage that ends and
    its duration in seconds.
    """

    work: Callable[[Job[T]], T]
    data: ImageSource
    caller: str
    deadline: float
    timeout: asyncio.Timeout
    is_prediction: bool = True
    stage: str = "queue"
    is_counted: bool = False
    on_stage: OnStage | None = None
    queued_at: float = field(default_factory=time.perf_counter)
    result: Future[T] = field(default_factory=Future)


_Eviction = tuple[Job[Any], ModelError]


class PredictionQueue:
    """Jobs for `workers` threads. The event loop submits and cancels jobs, the threads take and finish them."""

    def __init__(self, workers: int, limits: QueueLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self._workers = workers
        self._policy = OverloadPolicy(limits)
        self._clock = clock
        self._lock = threading.Lock()
        self._queued: FairQueue[Job[Any]] = FairQueue()
        self._running: set[Job[Any]] = set()
        # Running and queued jobs whose callers wait for them; callers without such jobs are absent.
        self._jobs_by_caller: Counter[str] = Counter()
        # Last in, first out: the model's weights may still be in the cache of the worker that became idle last.
        self._idle_workers: list[threading.Condition] = []
        self._job_s, self._job_s_measured = _INITIAL_JOB_S, False
        self._history = LoadHistory()
        self._closing = False

    @property
    def waiting(self) -> int:
        """The number of jobs in excess of the workers."""
        return max(0, len(self._running) + len(self._queued) - self._workers)

    @property
    def busy(self) -> bool:
        """Whether a new job would have to wait."""
        return len(self._running) + len(self._queued) >= self._workers

    @property
    def state(self) -> LoadState:
        """The load state, which limits how many jobs may wait."""
        return get_load_state(self._history, self._clock())

    @property
    def running(self) -> list[Job[Any]]:
        """The jobs that worker threads are running."""
        with self._lock:
            return list(self._running)

    def check_capacity(self, caller: str) -> None:
        """Reject a request before its image is read. Raises Overloaded."""
        with self._lock:
            evicted, error = self._decide(CallerLoad(self._jobs_by_caller[caller]), for_job=False)
        _fail(evicted)
        if error is not None:
            raise error

    def submit(self, job: Job[Any]) -> None:
        """Queue the job, possibly preempting another caller's. Raises Overloaded, and RuntimeError after `close`."""
        with self._lock:
            if self._closing:
                raise RuntimeError("the service is closed")
            evicted, error = self._decide(CallerLoad(self._jobs_by_caller[job.caller], job.deadline), for_job=True)
            if error is None:
                self._queued.push(job.caller, job)
                self._count(job)
                if self._idle_workers:
                    self._idle_workers.pop().notify()
        _fail(evicted)
        if error is not None:
            raise error

    def abandon(self, job: Job[Any]) -> None:
        """Stop counting a job for its caller, whose request has ended. If it is queued, free its slot and its bytes.

        A running job keeps its worker busy until it finishes.
        """
        with self._lock:
            if self._queued.remove(job.caller, job):
                job.data = b""
            self._discount(job)

    def evict_all(self, error: ModelError) -> None:
        """Remove all queued jobs; their callers get `error`."""
        evicted: list[_Eviction] = []
        with self._lock:
            while self._queued:
                job = self._queued.pop()
                self._discount(job)
                evicted.append((job, error))
        _fail(evicted)

    def register_worker(self) -> threading.Condition:
        """Return the condition that wakes one worker thread. The worker passes it to `take`."""
        return threading.Condition(self._lock)

    def take(self, wakeup: threading.Condition) -> Job[Any] | None:
        """Wait for a job. Returns None when the queue is closed and empty."""
        with self._lock:
            while not self._queued:
                if self._closing:
                    return None
                self._idle_workers.append(wakeup)
                wakeup.wait()
            job = self._queued.pop()
            self._running.add(job)
            return job

    def finish(self, job: Job[Any]) -> None:
        """Free the slot of a completed job. Call this before delivering the result: the caller may need the slot."""
        with self._lock:
            self._running.remove(job)
            if job.is_prediction:
                self._history = replace(self._history, completed=self._history.completed + 1)
            self._discount(job)

    def record_duration(self, seconds: float) -> None:
        """Update the estimated duration of a prediction. The first measurement replaces the initial guess."""
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

    def _decide(self, caller: CallerLoad, *, for_job: bool) -> tuple[Sequence[_Eviction], Overloaded | None]:
        """Return the evicted jobs, and the error if the request is rejected.

        Without `for_job`, an accepted request does not evict a job yet.
        """
        decision = self._policy.decide(self._take_snapshot(), caller)
        self._history = decision.history
        evicted = self._evict(decision.evictions) if for_job or not decision.accepted else ()
        return evicted, None if decision.accepted else self._make_overloaded()

    def _take_snapshot(self) -> LoadSnapshot:
        largest = self._queued.find_largest(self._jobs_by_caller) if self._queued else None
        return LoadSnapshot(
            now=self._clock(),
            workers=self._workers,
            running=len(self._running),
            queued=len(self._queued),
            job_s=self._job_s,
            largest_caller_jobs=0 if largest is None else self._jobs_by_caller[largest],
            history=self._history,
        )

    def _evict(self, count: int) -> Sequence[_Eviction]:
        """Remove the newest job of the caller with the most jobs, `count` times."""
        evicted: list[_Eviction] = []
        for _ in range(count):
            job = self._queued.evict_last(self._queued.find_largest(self._jobs_by_caller))
            self._discount(job)
            evicted.append((job, self._make_overloaded()))
        return evicted

    def _count(self, job: Job[Any]) -> None:
        job.is_counted = True
        self._jobs_by_caller[job.caller] += 1

    def _discount(self, job: Job[Any]) -> None:
        """Stop counting the job for its caller; a second call does nothing."""
        if not job.is_counted:
            return
        job.is_counted = False
        self._jobs_by_caller[job.caller] -= 1
        if not self._jobs_by_caller[job.caller]:
            del self._jobs_by_caller[job.caller]

    def _make_overloaded(self) -> Overloaded:
        jitter = random.uniform(0.5, 1.5)  # noqa: S311  (not a secret)
        retry_after_s = compute_retry_after_s(self._take_snapshot(), jitter)
        return Overloaded("The server is overloaded. Try again later.", retry_after_s=retry_after_s)


def _fail(evicted: Iterable[_Eviction]) -> None:
    """Deliver the errors of evicted jobs. Call this without holding the lock, because it runs callbacks."""
    for job, error in evicted:
        job.data = b""
        if job.result.set_running_or_notify_cancel():
            job.result.set_exception(error)
