"""Predictions for an event loop: worker threads inspect, decode, hash and infer, behind a bounded queue."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, TypeVar

from model.backends.base import Backend, ModelInfo
from model.errors import DeadlineExceeded, WorkerStuck
from model.explanation.explanation import ExplanationRequest, check_request, estimate_explanation_bytes
from model.imaging.decode import ImageNeeds, decode_image, measure_image
from model.imaging.input_spec import InputSpec
from model.imaging.quick_headers import has_quick_header, measure_plain_jpeg
from model.serving.memory_budget import Reservation
from model.serving.overload_policy import QueueLimits
from model.serving.prediction import Prediction, describe_image, explain_outputs, interpret_outputs, run_model
from model.serving.queue import Job, PredictionQueue
from model.serving.shared_backend import SharedBackend
from model.serving.watchdog import Watchdog
from model.serving.workers import WorkerThreads, wait_for_result

T = TypeVar("T")

# Called with the image's number of pixels before it is decoded. An exception ends the prediction.
Admit = Callable[[int], Awaitable[None]]
# Called with the stage and the caller of a job that will hardly end.
OnStuck = Callable[[str, str], object]
# Makes a job for the image of a request from its work.
_MakeJob = Callable[..., Job[Any]]


class _Inspection(NamedTuple):
    """What an image's header says, and the seconds spent on it."""

    needs: ImageNeeds
    queued_s: float = 0.0
    read_s: float = 0.0


class PredictionService:
    """Runs at most `workers` predictions at once, and serves waiting callers in rotation.

    Worker threads call `on_stage(stage, seconds)` when a stage ends, also when it ends in an error. `clock` is that of
    the deadlines, in seconds.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        workers: int,
        limits: QueueLimits,
        on_stage: Callable[[str, float], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._shared = SharedBackend(backend)
        self._on_stage = on_stage
        self._clock = clock
        self.queue = PredictionQueue(workers, limits, clock)
        self._active = 0
        self._stuck = 0  # jobs
        self._timeouts: set[asyncio.Timeout] = set()
        self._workers = workers
        self._threads = WorkerThreads(self.queue, workers)

    @property
    def in_use(self) -> bool:
        """Whether a new request may have to wait: there are at least as many requests in progress as workers."""
        return self._active >= self._workers

    @property
    def model(self) -> ModelInfo:
        """The model that serves new requests."""
        return self.backend.info

    @property
    def backend(self) -> Backend:
        """The back end that serves new requests."""
        return self._shared.backend

    async def predict(
        self,
        data: bytes,
        admit: Admit | None = None,
        explanation: ExplanationRequest | None = None,
        *,
        reservation: Reservation | None = None,
        caller: str = "",
        deadline: float = math.inf,
    ) -> Prediction:
        """Classify the encoded image `data`. `admit` is awaited after its header is read and before it is decoded.

        `reservation` is resized to what decoding and an explanation need. When the caller is cancelled or `deadline`
        passes, a queued job frees its slot and the bytes at once; a running job is completed, its result discarded, and
        its bytes stay reserved until then. Raises Overloaded, MemoryFull, DeadlineExceeded, WorkerStuck, a subclass of
        ImageRejected, ExplanationUnavailable, UnknownLabel, what `admit` raises, and RuntimeError after `close`.
        """
        with self._shared as shared:
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
                job = make_job(partial(self._predict, backend, explanation, inspection))
                result: Prediction = await self._run(job, reservation, shared)
                return result

    async def measure(
        self,
        data: bytes,
        *,
        reservation: Reservation | None = None,
        caller: str = "",
        deadline: float = math.inf,
    ) -> ImageNeeds:
        """Return the image's pixels and the memory that a prediction needs; queue for that as `predict` does.

        Raises Overloaded, DeadlineExceeded, WorkerStuck, and a subclass of ImageRejected.
        """
        async with self._accept(data, caller, deadline) as make_job:
            return (await self._inspect_in_thread(self.model.input_spec, make_job, reservation)).needs

    def check_capacity(self, caller: str) -> None:
        """Reject a request before its image is read. Raises Overloaded, WorkerStuck."""
        self.check_threads()
        self.queue.check_capacity(caller)

    def check_explanation(self, request: ExplanationRequest) -> None:
        """Raise ExplanationUnavailable or UnknownLabel if the model now in use cannot give the explanation."""
        check_request(self.backend.head, self.model.classes, request)

    def check_threads(self) -> None:
        """Raises WorkerStuck once a job has run longer than any may."""
        if self._stuck:
            raise WorkerStuck

    async def watch(self, limit_s: float, on_stuck: OnStuck) -> None:
        """Watch the threads until cancelled. A job that runs for more than `limit_s` seconds is stuck.

        Its caller gets DeadlineExceeded, and later requests WorkerStuck: this service does not recover.
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

    def expire_all(self) -> None:
        """Let the deadlines of all requests in progress pass now."""
        for timeout in list(self._timeouts):
            _expire(timeout)

    def replace_backend(self, backend: Backend) -> Future[Backend]:
        """Serve later requests with `backend`. Returns a future of the previous one, done when no request uses it."""
        previous, self._shared = self._shared, SharedBackend(backend)
        return previous.retire()

    def close(self, limit_s: float = math.inf) -> bool:
        """Finish the queued jobs and end the threads; the back end stays open.

        Blocks for at most `limit_s` seconds, and returns whether all threads have ended.
        """
        self.queue.close()
        return self._threads.join(limit_s)

    @asynccontextmanager
    async def _accept(self, data: bytes, caller: str, deadline: float) -> AsyncIterator[_MakeJob]:
        """Count the request in the block, and end it with DeadlineExceeded at `deadline` or when it is expired."""
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

    async def _inspect(
        self, data: bytes, spec: InputSpec, make_job: _MakeJob, reservation: Reservation | None
    ) -> _Inspection:
        """Read the image's header: here if that is quick, else in a worker thread."""
        started = time.perf_counter()
        try:
            needs = measure_plain_jpeg(data, spec)
            if needs is None and has_quick_header(data):
                needs = measure_image(data, spec)
        except Exception:
            self._on_stage("decode", time.perf_counter() - started)
            raise
        if needs is None:
            return await self._inspect_in_thread(spec, make_job, reservation)
        return _Inspection(needs, read_s=time.perf_counter() - started)

    async def _inspect_in_thread(
        self, spec: InputSpec, make_job: _MakeJob, reservation: Reservation | None
    ) -> _Inspection:
        result: _Inspection = await self._run(make_job(partial(self._measure, spec), is_prediction=False), reservation)
        return result

    async def _run(self, job: Job[T], *held: Reservation | SharedBackend | None) -> T:
        """Do the job in a thread. If it outlasts its caller, what is `held` for it stays held until it is done."""
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

    def _measure(self, spec: InputSpec, job: Job[_Inspection]) -> _Inspection:
        started = time.perf_counter()
        self._check_deadline(job)
        job.stage = "decode"
        try:
            needs = measure_image(job.data, spec)
        except BaseException:
            self._on_stage("decode", time.perf_counter() - started)
            raise
        return _Inspection(needs, started - job.queued_at, time.perf_counter() - started)

    def _predict(
        self,
        backend: Backend,
        explanation: ExplanationRequest | None,
        inspection: _Inspection | None,
        job: Job[Prediction],
    ) -> Prediction:
        data, info, started = job.data, backend.info, time.perf_counter()
        queued_s, read_s = (inspection.queued_s, inspection.read_s) if inspection else (0.0, 0.0)
        timing: dict[str, float] = {}
        self._report("queue", started - job.queued_at + queued_s, timing)
        self._check_deadline(job)
        with self._time_stage("decode", job, timing, read_s):
            decoded = decode_image(data, info.input_spec, reduced=inspection.needs.reduced if inspection else None)
            facts = describe_image(data, decoded)
        with self._time_stage("infer", job, timing):
            outputs = run_model(backend, decoded.pixels, with_features=explanation is not None)
        prediction = interpret_outputs(outputs, info, facts, timing)
        if explanation is not None:
            with self._time_stage("explain", job, timing):
                explained = explain_outputs(backend, outputs, decoded.pixels, explanation)
            prediction = replace(prediction, explanation=explained)
        # Only complete jobs count: the time of a broken image does not predict that of the next one.
        self.queue.record_duration(time.perf_counter() - started)
        return prediction

    def _check_deadline(self, job: Job[Any]) -> None:
        if self._clock() > job.deadline:
            raise DeadlineExceeded

    @contextmanager
    def _time_stage(self, stage: str, job: Job[Any], timing: dict[str, float], spent_s: float = 0.0) -> Iterator[None]:
        """Report the duration of the block, plus `spent_s` spent on the stage before."""
        job.stage = stage
        started = time.perf_counter() - spent_s
        try:
            yield
        finally:
            self._report(stage, time.perf_counter() - started, timing)

    def _report(self, stage: str, seconds: float, timing: dict[str, float]) -> None:
        timing[stage] = seconds
        self._on_stage(stage, seconds)


def _expire(timeout: asyncio.Timeout) -> None:
    with suppress(RuntimeError):  # the wait has ended already
        timeout.reschedule(0)
