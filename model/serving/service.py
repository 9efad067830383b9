"""Predictions for an event loop: worker threads behind a bounded queue inspect, decode, hash and infer."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext, suppress
from functools import partial
from typing import Any, Protocol, TypeVar

from model.backends.base import Backend, ModelInfo
from model.canary.comparison import Comparison
from model.canary.trial import Trial
from model.errors import DeadlineExceeded, WorkerStuck
from model.explanation.explanation import ExplanationRequest, check_request, estimate_explanation_bytes
from model.imaging.decode import ImageNeeds
from model.imaging.input_spec import InputSpec
from model.serving.image_work import ImageWork, Inspection
from model.serving.memory_budget import Reservation
from model.serving.overload_policy import QueueLimits
from model.serving.prediction import Prediction
from model.serving.queue import Job, OnStage, PredictionQueue
from model.serving.shared_backend import SharedBackend
from model.serving.sources import ImageSource
from model.serving.watchdog import Watchdog
from model.serving.workers import WorkerThreads, wait_for_result

T = TypeVar("T")

# Called with the image's number of pixels before it is decoded. An exception ends the prediction.
Admit = Callable[[int], Awaitable[None]]
# Called with the stage and the caller of a job that is stuck.
OnStuck = Callable[[str, str], object]
# Makes a job for the image of a request from a work function.
_MakeJob = Callable[..., Job[Any]]
_NO_COMPARISON: AbstractContextManager[None] = nullcontext()


class _Holding(Protocol):
    """A resource of a request that must stay held while a thread works on the image."""

    def hold_until_done(self, work: Future[Any]) -> None: ...


class PredictionService:
    """Runs at most `workers` predictions at once, and serves waiting callers in rotation.

    Calls `on_stage(stage, seconds)`, usually in a worker thread, when a stage ends, even with an error. Deadlines are
    in seconds of `clock`.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        workers: int,
        limits: QueueLimits,
        on_stage: OnStage,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._shared = SharedBackend(backend)
        self._trial: Trial | None = None
        self._clock = clock
        self.queue = PredictionQueue(workers, limits, clock)
        self._work = ImageWork(on_stage, self.queue.record_duration, clock)
        self._active = 0
        self._last_at = -math.inf
        self._stuck = 0  # jobs
        self._timeouts: set[asyncio.Timeout] = set()
        self._workers = workers
        self._threads = WorkerThreads(self.queue, workers)

    @property
    def in_use(self) -> bool:
        """Whether a new request may have to wait, because at least as many requests as workers are in progress."""
        return self._active >= self._workers

    @property
    def model(self) -> ModelInfo:
        """The model that serves new requests."""
        return self.backend.info

    @property
    def backend(self) -> Backend:
        """The back end that serves new requests."""
        return self._shared.backend

    async def predict(  # noqa: PLR0913  (each option of a prediction is a keyword)
        self,
        data: ImageSource,
        admit: Admit | None = None,
        explanation: ExplanationRequest | None = None,
        *,
        reservation: Reservation | None = None,
        caller: str = "",
        deadline: float = math.inf,
        on_stage: OnStage | None = None,
        joins_trial: bool = True,
    ) -> Prediction:
        """Classify the image `data`. `admit` is awaited after its header is read and before it is decoded.

        `reservation` is resized to what decoding and an explanation need. `on_stage` is called with the stages of this
        prediction. Without `joins_trial`, the image is not part of a trial. When the caller is cancelled or `deadline`
        passes, a queued job frees its slot and its bytes immediately; a running job is completed, its result discarded,
        and its bytes stay reserved until then. Raises Overloaded, MemoryFull, DeadlineExceeded, WorkerStuck, a subclass
        of ImageRejected, ExplanationUnavailable, UnknownLabel, whatever `admit` raises, and RuntimeError after `close`.
        """
        with self._shared as shared, self._compare(caller, joins_trial) as comparison:
            backend, spec = shared.backend, shared.backend.info.input_spec
            async with self._accept(data, caller, deadline) as make_job:
                inspection = None
                if admit is not None or reservation is not None:
                    inspection = await self._inspect(data, spec, make_job, reservation)
                    if reservation is not None:
                        needed = inspection.needs.bytes
                        if explanation is not None:
                            needed += estimate_explanation_bytes(spec, explanation)
                        await reservation.resize(needed, while_waiting=len(data))
                    if admit is not None:
                        await admit(inspection.needs.pixels)
                job = make_job(
                    partial(self._work.predict, backend, explanation, inspection, comparison), on_stage=on_stage
                )
                result: Prediction = await self._run(job, reservation, shared, comparison)
                return result

    async def measure(
        self,
        data: ImageSource,
        *,
        reservation: Reservation | None = None,
        caller: str = "",
        deadline: float = math.inf,
    ) -> ImageNeeds:
        """Return the image's size and the memory that a prediction needs; waits in the queue as `predict` does.

        Raises Overloaded, DeadlineExceeded, WorkerStuck, and a subclass of ImageRejected.
        """
        async with self._accept(data, caller, deadline) as make_job:
            return (await self._inspect_in_thread(self.model.input_spec, make_job, reservation)).needs

    def check_capacity(self, caller: str) -> None:
        """Reject a request before its image is read. Raises Overloaded, WorkerStuck."""
        self.check_threads()
        self.queue.check_capacity(caller)

    def check_explanation(self, request: ExplanationRequest) -> None:
        """Raise ExplanationUnavailable or UnknownLabel if the current model cannot give the explanation."""
        check_request(self.backend.head, self.model.classes, request)

    def check_threads(self) -> None:
        """Raise WorkerStuck if a job has exceeded the limit of `watch`."""
        if self._stuck:
            raise WorkerStuck

    async def watch(self, limit_s: float, on_stuck: OnStuck) -> None:
        """Watch the threads until cancelled. A job that runs for more than `limit_s` seconds is stuck.

        Its caller gets DeadlineExceeded, and later requests get WorkerStuck: this service does not recover.
        """
        watchdog = Watchdog[Job[Any]](limit_s)
        while True:
            await asyncio.sleep(watchdog.interval_s)
            for job in watchdog.find_stuck(self.queue.running):
                self._stuck += 1
                _expire(job.timeout)
                on_stuck(job.stage, job.caller)
            if self._stuck >= self._workers:
                self.queue.evict_all(WorkerStuck())

    @property
    def idle_s(self) -> float:
        """Seconds since the last request ended: 0 while one is in progress, infinite before the first."""
        return 0.0 if self._active else self._clock() - self._last_at

    async def release_memory(self) -> None:
        """Have the back end return the memory that it needs only during predictions."""
        with self._shared as shared:
            await asyncio.to_thread(shared.backend.release_memory)

    def expire_all(self) -> None:
        """End all requests in progress with DeadlineExceeded."""
        for timeout in list(self._timeouts):
            _expire(timeout)

    def replace_backend(self, backend: Backend) -> Future[Backend]:
        """Serve later requests with `backend`. Returns a future of the previous back end, done when it is unused.

        Ends a trial, because its candidate was compared with the previous back end.
        """
        self.end_trial()
        previous, self._shared = self._shared, SharedBackend(backend)
        return previous.retire()

    @property
    def trial(self) -> Trial | None:
        """The trial in progress, if any."""
        return self._trial

    def start_trial(self, make_trial: Callable[[SharedBackend], Trial]) -> Trial:
        """Start to compare a candidate with the back end in service on new requests."""
        self.end_trial()
        self._trial = make_trial(self._shared)
        return self._trial

    def end_trial(self) -> None:
        """Stop serving requests with the candidate, and stop comparing images."""
        trial, self._trial = self._trial, None
        if trial is not None:
            trial.close()

    def close(self, limit_s: float = math.inf) -> bool:
        """Finish the queued jobs and end the threads; the back end stays open.

        Blocks for at most `limit_s` seconds, and returns whether all threads have ended.
        """
        self.queue.close()
        return self._threads.join(limit_s)

    @asynccontextmanager
    async def _accept(self, data: ImageSource, caller: str, deadline: float) -> AsyncIterator[_MakeJob]:
        """Count the request as active in the block; end it with DeadlineExceeded at `deadline` or by `expire_all`."""
        self.check_capacity(caller)
        timeout = asyncio.timeout(None if math.isinf(deadline) else deadline - self._clock())
        self._active += 1
        try:
            async with timeout:
                self._timeouts.add(timeout)
                yield partial(Job[Any], data=data, caller=caller, deadline=deadline, timeout=timeout)
        except TimeoutError:
            if not timeout.expired():
                raise
            raise DeadlineExceeded from None
        finally:
            self._timeouts.discard(timeout)
            self._active -= 1
            self._last_at = self._clock()

    async def _inspect(
        self, data: ImageSource, spec: InputSpec, make_job: _MakeJob, reservation: Reservation | None
    ) -> Inspection:
        """Read the image's header on the event loop if that is quick, otherwise in a worker thread."""
        inspection = self._work.inspect_quickly(data, spec)
        return inspection or await self._inspect_in_thread(spec, make_job, reservation)

    async def _inspect_in_thread(
        self, spec: InputSpec, make_job: _MakeJob, reservation: Reservation | None
    ) -> Inspection:
        job = make_job(partial(self._work.inspect, spec), is_prediction=False)
        result: Inspection = await self._run(job, reservation)
        return result

    def _compare(self, caller: str, joins_trial: bool) -> AbstractContextManager[Comparison | None]:
        return self._trial.compare(caller) if joins_trial and self._trial is not None else _NO_COMPARISON

    async def _run(self, job: Job[T], *held: _Holding | None) -> T:
        """Run the job in a thread. If its caller is cancelled while it runs, keep what is `held` until it ends."""
        self.check_threads()
        self.queue.submit(job)
        try:
            return await wait_for_result(job.result)
        except asyncio.CancelledError:
            if not job.result.cancel():
                for holding in held:
                    if holding is not None:
                        holding.hold_until_done(job.result)
            self.queue.abandon(job)
            raise


def _expire(timeout: asyncio.Timeout) -> None:
    with suppress(RuntimeError):  # the wait has ended already
        timeout.reschedule(0)
