"""Predictions for an event loop: decoding, hashing and inference happen in worker threads, behind a bounded queue."""

from __future__ import annotations

import asyncio
import hashlib
import math
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from model.backends import Backend, ModelInfo
from model.errors import Overloaded
from model.images import decode_image, image_size

_EWMA_WEIGHT = 0.2
_FIRST_GUESS_S = 0.1
_T = TypeVar("_T")

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


@dataclass(slots=True, eq=False)
class _Job:
    """One caller's place. An image that is measured first comes to the workers twice: the times add up."""

    data: bytes
    queued_at: float = 0.0
    waited_s: float = 0.0
    decode_s: float = 0.0
    step: Future[Any] | None = None


class PredictionService:
    """At most `workers` predictions at once and `queue_limit` waiting; more are turned away.

    `on_stage(stage, seconds)` is called from worker threads when a stage ends, also when it ends in an error.
    """

    def __init__(
        self, backend: Backend, *, workers: int, queue_limit: int, on_stage: Callable[[str, float], None]
    ) -> None:
        self._backend = backend
        self._workers = workers
        self._queue_limit = queue_limit
        self._on_stage = on_stage
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="predict")
        self._lock = threading.Lock()
        self._unfinished = 0
        self._job_s = _FIRST_GUESS_S

    @property
    def waiting(self) -> int:
        """How many jobs no worker has begun."""
        return max(0, self._unfinished - self._workers)

    async def predict(self, data: bytes, admit: Admit | None = None) -> Prediction:
        """Classify the image that `data` encodes; `admit` comes between the reading of its header and its decoding.

        A caller who is cancelled while queued gives its place and its bytes back; one that runs is finished unheard.
        Raises Overloaded, a subclass of ImageRefused, what `admit` raises, and RuntimeError after `close`.
        """
        async with self._place(data) as job:
            if admit is not None:
                await admit(await self._run(self._measure, job))
            return await self._run(self._work, job)

    async def measure(self, data: bytes) -> int:
        """The number of pixels that a prediction would decode. Raises as `predict` does."""
        async with self._place(data) as job:
            return await self._run(self._measure, job)

    def close(self) -> None:
        """Finish what was admitted, then end the threads. Blocks for as long; the back end stays open."""
        self._executor.shutdown()

    @asynccontextmanager
    async def _place(self, data: bytes) -> AsyncIterator[_Job]:
        with self._lock:
            if self._unfinished >= self._workers + self._queue_limit:
                raise Overloaded("Every place in the queue is taken. Try again later.", retry_after_s=self._drain_s())
            self._unfinished += 1
        job = _Job(data)
        try:
            yield job
        finally:
            # A thread that is at work cannot be stopped: the place is taken until it ends.
            if job.step is None:
                self._leave(job)
            else:
                job.step.add_done_callback(lambda _: self._leave(job))

    async def _run(self, step: Callable[[_Job], _T], job: _Job) -> _T:
        job.queued_at = time.perf_counter()
        future = self._executor.submit(step, job)
        job.step = future
        return await asyncio.wrap_future(future)

    def _leave(self, job: _Job) -> None:
        # The executor keeps a cancelled job until a worker comes by; it need not keep the image.
        job.data = b""
        with self._lock:
            self._unfinished -= 1

    def _drain_s(self) -> int:
        """Whole seconds until the queue of this moment is worked off, at least 1."""
        return max(1, math.ceil(self._unfinished / self._workers * self._job_s))

    def _measure(self, job: _Job) -> int:
        started = time.perf_counter()
        job.waited_s = started - job.queued_at
        try:
            width, height = image_size(job.data)
        except BaseException:
            self._report("queue", job.waited_s, {})
            self._report("decode", time.perf_counter() - started, {})
            raise
        job.decode_s = time.perf_counter() - started
        return width * height

    def _work(self, job: _Job) -> Prediction:
        data, started = job.data, time.perf_counter()
        timing: dict[str, float] = {}
        self._report("queue", job.waited_s + started - job.queued_at, timing)
        try:
            with self._stage("decode", timing, job.decode_s):
                decoded = decode_image(data)
                facts = ImageFacts(
                    hashlib.sha256(data).hexdigest(), decoded.format, decoded.width, decoded.height, len(data)
                )
            with self._stage("infer", timing):
                probabilities = self._backend.predict(decoded.pixels[np.newaxis])[0]
        finally:
            self._learn(time.perf_counter() - started)
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
            self._job_s += _EWMA_WEIGHT * (seconds - self._job_s)
