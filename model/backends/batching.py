"""Group waiting images into batches, for engines that compute a batch faster than one image at a time."""

from __future__ import annotations

import math
import threading
import time
from concurrent.futures import Future

import numpy as np
from msgspec import Struct, field
from numpy.typing import NDArray

from model.backends.base import Backend, ModelInfo, Weights
from model.backends.call import BackendCall, calling, current_call
from model.errors import DeadlineExceeded
from model.explanation.head import Head

Outputs = tuple[NDArray[np.float32], NDArray[np.float32]]


class _Batch(Struct, eq=False):
    """The images of one batch, and the deadlines of their calls."""

    pixels: list[NDArray[np.uint8]] = field(default_factory=list)
    deadlines: list[float] = field(default_factory=list)
    complete: threading.Event = field(default_factory=threading.Event)
    result: Future[tuple[Outputs, BackendCall]] = field(default_factory=Future)


class BatchingBackend:
    """Has `inner` predict up to `largest` images at once.

    The first image of a batch waits at most `linger_s` seconds for others, and only while another batch is being
    computed. Predictions with feature maps are not batched. A batch cannot have more images than there are threads
    that call this back end.
    """

    def __init__(self, inner: Backend, largest: int, linger_s: float) -> None:
        self.inner = inner
        self._largest = largest
        self._linger_s = linger_s
        self._lock = threading.Lock()
        self._open: _Batch | None = None
        self._running = 0

    @property
    def info(self) -> ModelInfo:
        return self.inner.info

    @property
    def head(self) -> Head | None:
        return self.inner.head

    @property
    def weights(self) -> Weights | None:
        return self.inner.weights

    @property
    def waiting(self) -> int:
        """The number of images in the open batch."""
        with self._lock:
            return 0 if self._open is None else len(self._open.pixels)

    def predict(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self.inner.predict(pixels)

    def predict_pooled(self, pixels: NDArray[np.uint8]) -> Outputs:
        if len(pixels) != 1:
            return self.inner.predict_pooled(pixels)
        call = current_call()
        batch, index, is_idle = self._join(pixels, call.deadline)
        if index == 0:
            self._run(batch, is_idle)
        left = call.deadline - time.monotonic()
        try:
            (probabilities, pooled), common = batch.result.result(None if math.isinf(left) else max(left, 0.0))
        except TimeoutError:
            raise DeadlineExceeded from None
        call.model, call.engine = common.model, common.engine
        return probabilities[index : index + 1], pooled[index : index + 1]

    def predict_with_features(self, pixels: NDArray[np.uint8]) -> Outputs:
        return self.inner.predict_with_features(pixels)

    def release_memory(self) -> None:
        self.inner.release_memory()

    def close(self) -> None:
        self.inner.close()

    def _join(self, pixels: NDArray[np.uint8], deadline: float) -> tuple[_Batch, int, bool]:
        """Return the batch, the image's index in it, and whether `inner` is idle."""
        with self._lock:
            if self._open is None:
                self._open = _Batch()
            batch, index = self._open, len(self._open.pixels)
            batch.pixels.append(pixels)
            batch.deadlines.append(deadline)
            if len(batch.pixels) == self._largest:
                self._open = None
                batch.complete.set()
            return batch, index, not self._running

    def _run(self, batch: _Batch, is_idle: bool) -> None:
        """Wait for further images unless `inner` is idle, then predict the batch in this thread."""
        if not is_idle:
            batch.complete.wait(self._linger_s)
        with self._lock:
            if self._open is batch:
                self._open = None
            self._running += 1
        try:
            # Callers with an earlier deadline stop waiting by themselves.
            with calling(max(batch.deadlines)) as call:
                outputs = self.inner.predict_pooled(np.concatenate(batch.pixels))
            batch.result.set_result((outputs, call))
        except BaseException as error:  # every caller of the batch gets the error
            batch.result.set_exception(error)
        finally:
            with self._lock:
                self._running -= 1
