"""Predictions for an event loop: decoding, hashing and inference happen in worker threads, behind a bounded queue."""

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
from model.serving.prediction import ImageFacts, Prediction
from model.serving.queue import Job, PredictionQueue, QueueLimits

# Of the threads that infer: on a full machine whoever reads requests, or refuses them, goes first; passwords go last.
_NICENESS = 3

# Told the image's number of pixels before it is decoded; what it raises ends the prediction.
Admit = Callable[[int], Awaitable[None]]


class PredictionService:
    """At most `workers` predictions at once, a bounded queue before them, and every caller in turn.

    `on_stage(stage, seconds)` is called from worker threads when a stage ends, also when it ends in an error.
    """

    def __init__(
        self, backend: Backend, *, workers: int, limits: QueueLimits, on_stage: Callable[[str, float], None]
    ) -> None:
        self._backend = backend
        self._on_stage = on_stage
        self.queue = PredictionQueue(workers, limits)
        self._inside = 0
        self._threads = [threading.Thread(target=self._serve, name=f"predict_{index}") for index in range(workers)]
        for thread in self._threads:
            thread.start()

    @property
    def in_use(self) -> bool:
        """Whether one who comes now may have to wait: as many as there are workers wait for an answer, or for leave."""
        return self._inside >= len(self._threads)

    async def predict(
        self,
        data: bytes,
        admit: Admit | None = None,
        *,
        reservation: Reservation | None = None,
        caller: str = "",
        deadline: float = math.inf,
    ) -> Prediction:
        """Classify the image that `data` encodes; `admit` comes between the reading of its header and its decoding.

        `room` is made as large as the decoding needs. `deadline` is in seconds of time.monotonic(). Who is cancelled
        while queued gives its place and its bytes back; one that runs is finished unheard. Raises Overloaded,
        MemoryFull, DeadlineExceeded, a subclass of ImageRejected, what `admit` raises, and RuntimeError after `close`.
        """
        self.queue.check_capacity(caller)
        backend = self._backend
        self._inside += 1
        try:
            measured_s = await self._admitted(data, admit, reservation, backend)
            return await self._answer(Job(data, backend, caller, deadline, measured_s), reservation)
        finally:
            self._inside -= 1

    async def measure(self, data: bytes) -> ImageNeeds:
        """The pixels and the memory that a prediction would take. Raises a subclass of ImageRejected."""
        return await self._measure(data, self._backend.info.input_spec)

    async def _measure(self, data: bytes, spec: InputSpec) -> ImageNeeds:
        started = time.perf_counter()
        try:
            if has_quick_header(data):
                return measure_image(data, spec)
            return await asyncio.to_thread(measure_image, data, spec)
        except BaseException:
            self._on_stage("decode", time.perf_counter() - started)
            raise

    async def _admitted(
        self, data: bytes, admit: Admit | None, reservation: Reservation | None, backend: Backend
    ) -> float:
        """Ask for leave to decode. Returns how many seconds the reading of the header took."""
        if admit is None and reservation is None:
            return 0.0
        started = time.perf_counter()
        needs = await self._measure(data, backend.info.input_spec)
        measured_s = time.perf_counter() - started
        if reservation is not None:
            await reservation.resize(needs.bytes, meanwhile=len(data))
        if admit is not None:
            await admit(needs.pixels)
        return measured_s

    async def _answer(self, job: Job, reservation: Reservation | None) -> Prediction:
        self.queue.join(job)
        try:
            return await asyncio.wrap_future(job.answer)
        except asyncio.CancelledError:
            if job.answer.cancel():
                self.queue.leave(job)
            elif reservation is not None:
                reservation.hold_until_done(job.answer)
            raise

    def replace_backend(self, backend: Backend) -> Backend:
        """Serve later requests with `backend`. Returns the previous one, which earlier requests use until they end."""
        previous, self._backend = self._backend, backend
        return previous

    def close(self) -> None:
        """Finish what was admitted, then end the threads. Blocks for as long; the back end stays open."""
        self.queue.close()
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        """What a worker thread does until the service is closed and nobody waits."""
        if sys.platform == "linux":  # where a thread has a niceness of its own
            with suppress(OSError):  # forbidden: then all threads go alike
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        called = self.queue.worker()
        while (job := self.queue.next(called)) is not None:
            tell = self._tried(job) if job.answer.set_running_or_notify_cancel() else None
            job.data = b""
            self.queue.done(job)
            if tell is not None:
                tell()

    def _tried(self, job: Job) -> Callable[[], None]:
        """Do the work; returns what tells the caller of it."""
        try:
            return partial(job.answer.set_result, self._work(job))
        except BaseException as error:  # the caller's, whatever it is
            return partial(job.answer.set_exception, error)

    def _work(self, job: Job) -> Prediction:
        data, started = job.data, time.perf_counter()
        timing: dict[str, float] = {}
        self._report("queue", started - job.queued_at, timing)
        if time.monotonic() > job.deadline:
            raise DeadlineExceeded
        with self._stage("decode", timing, job.measured_s):
            decoded = decode_image(data, job.backend.info.input_spec)
            facts = ImageFacts(
                hashlib.sha256(data).hexdigest(), decoded.format, decoded.width, decoded.height, len(data)
            )
        with self._stage("infer", timing):
            probabilities = job.backend.predict(decoded.pixels[np.newaxis])[0]
        self.queue.learn(time.perf_counter() - started)  # a broken image's time tells nothing of the next one's
        index = int(probabilities.argmax())
        info = job.backend.info
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
