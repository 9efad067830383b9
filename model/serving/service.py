"""Predictions for an event loop: worker threads decode, hash and infer, behind a bounded queue."""

from __future__ import annotations

import asyncio
import hashlib
import math
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

import numpy as np

from model.backends.base import Backend
from model.errors import DeadlineExceeded
from model.imaging.decode import ImageNeeds, decode_image, has_quick_header, measure_image
from model.imaging.input_spec import InputSpec
from model.serving.memory_budget import Reservation
from model.serving.overload_policy import QueueLimits
from model.serving.prediction import ImageFacts, Prediction
from model.serving.queue import Job, PredictionQueue

# The event loop's thread runs first (0), so that it reads and rejects requests while all cores infer. Password hashing
# runs last (10).
_NICENESS = 3

# Called with the image's number of pixels before it is decoded. An exception ends the prediction.
Admit = Callable[[int], Awaitable[None]]


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
        self._backend = backend
        self._on_stage = on_stage
        self._clock = clock
        self.queue = PredictionQueue(workers, limits, clock)
        self._active = 0
        self._threads = [threading.Thread(target=self._run_worker, name=f"predict_{index}") for index in range(workers)]
        for thread in self._threads:
            thread.start()

    @property
    def in_use(self) -> bool:
        """Whether a new request may have to wait: there are at least as many requests in progress as workers."""
        return self._active >= len(self._threads)

    async def predict(
        self,
        data: bytes,
        admit: Admit | None = None,
        *,
        reservation: Reservation | None = None,
        caller: str = "",
        deadline: float = math.inf,
    ) -> Prediction:
        """Classify the encoded image `data`. `admit` is awaited after its header is read and before it is decoded.

        `reservation` is resized to what decoding needs. Cancellation while queued frees the slot and the bytes at once;
        a running job is completed and its result discarded. Raises Overloaded, MemoryFull, DeadlineExceeded, a subclass
        of ImageRejected, what `admit` raises, and RuntimeError after `close`.
        """
        self.queue.check_capacity(caller)
        backend = self._backend
        self._active += 1
        try:
            measured_s = await self._prepare(data, backend.info.input_spec, admit, reservation)
            return await self._run(Job(data, backend, caller, deadline, measured_s), reservation)
        finally:
            self._active -= 1

    async def measure(self, data: bytes) -> ImageNeeds:
        """Return the image's pixels and the memory that a prediction needs. Raises a subclass of ImageRejected."""
        return await self._measure(data, self._backend.info.input_spec)

    def replace_backend(self, backend: Backend) -> Backend:
        """Serve later requests with `backend`. Returns the previous one, which earlier requests use until they end."""
        previous, self._backend = self._backend, backend
        return previous

    def close(self) -> None:
        """Finish the queued jobs and end the threads. Blocks until then; the back end stays open."""
        self.queue.close()
        for thread in self._threads:
            thread.join()

    async def _prepare(
        self, data: bytes, spec: InputSpec, admit: Admit | None, reservation: Reservation | None
    ) -> float:
        """Reserve memory and get admission. Returns the seconds that reading the header took."""
        if admit is None and reservation is None:
            return 0.0
        started = time.perf_counter()
        needs = await self._measure(data, spec)
        measured_s = time.perf_counter() - started
        if reservation is not None:
            await reservation.resize(needs.bytes, while_waiting=len(data))
        if admit is not None:
            await admit(needs.pixels)
        return measured_s

    async def _measure(self, data: bytes, spec: InputSpec) -> ImageNeeds:
        started = time.perf_counter()
        try:
            if has_quick_header(data):
                return measure_image(data, spec)
            return await asyncio.to_thread(measure_image, data, spec)
        except BaseException:
            self._on_stage("decode", time.perf_counter() - started)
            raise

    async def _run(self, job: Job, reservation: Reservation | None) -> Prediction:
        self.queue.submit(job)
        try:
            return await asyncio.wrap_future(job.result)
        except asyncio.CancelledError:
            if job.result.cancel():
                self.queue.cancel(job)
            elif reservation is not None:
                reservation.hold_until_done(job.result)
            raise

    def _run_worker(self) -> None:
        """The body of a worker thread, which ends when the queue is closed and empty."""
        if sys.platform == "linux":  # the only system where a thread has its own niceness
            with suppress(OSError):  # where lowering the priority is forbidden, all threads run alike
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        wakeup = self.queue.register_worker()
        while (job := self.queue.take(wakeup)) is not None:
            deliver = self._execute(job) if job.result.set_running_or_notify_cancel() else None
            job.data = b""
            self.queue.finish(job)
            if deliver is not None:
                deliver()

    def _execute(self, job: Job) -> Callable[[], None]:
        """Do the work, and return a function that delivers the result or the error to the caller."""
        try:
            return partial(job.result.set_result, self._predict(job))
        except BaseException as error:  # every error belongs to the caller; the thread goes on
            return partial(job.result.set_exception, error)

    def _predict(self, job: Job) -> Prediction:
        data, info, started = job.data, job.backend.info, time.perf_counter()
        timing: dict[str, float] = {}
        self._report("queue", started - job.queued_at, timing)
        if self._clock() > job.deadline:
            raise DeadlineExceeded
        with self._time_stage("decode", timing, job.measured_s):
            decoded = decode_image(data, info.input_spec)
            facts = ImageFacts(
                hashlib.sha256(data).hexdigest(), decoded.format, decoded.width, decoded.height, len(data)
            )
        with self._time_stage("infer", timing):
            probabilities = job.backend.predict(decoded.pixels[np.newaxis])[0]
        # Only complete jobs count: the time of a broken image does not predict that of the next one.
        self.queue.record_duration(time.perf_counter() - started)
        index = int(probabilities.argmax())
        return Prediction(probabilities, index, info.classes[index], float(probabilities[index]), info, facts, timing)

    @contextmanager
    def _time_stage(self, stage: str, timing: dict[str, float], spent_s: float = 0.0) -> Iterator[None]:
        """Report the duration of the block, plus `spent_s` spent on the stage before."""
        started = time.perf_counter() - spent_s
        try:
            yield
        finally:
            self._report(stage, time.perf_counter() - started, timing)

    def _report(self, stage: str, seconds: float, timing: dict[str, float]) -> None:
        timing[stage] = seconds
        self._on_stage(stage, seconds)
