"""Batching of images that wait at the same time."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

from model.backends.batching import BatchingBackend
from model.backends.call import calling
from model.backends.oip.errors import EngineFailed
from model.backends.stub import StubBackend
from model.errors import DeadlineExceeded
from tests.support.polling import wait_until

IMAGES = np.random.default_rng(0).integers(0, 256, (9, 1, 256, 256, 3)).astype(np.uint8)


class HeldBackend(StubBackend):
    """Blocks every call until `released` is set, and records how many images each call has."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []
        self.released = threading.Event()
        self.fails = False

    def predict_pooled(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        self.sizes.append(len(pixels))
        self.released.wait()
        if self.fails:
            raise EngineFailed("broken")
        return super().predict_pooled(pixels)


def test_images_that_wait_go_together_and_get_their_own_results() -> None:
    """While one image is computed, eight others form batches of four; each gets the result that it would get alone."""
    inner = HeldBackend()
    backend = BatchingBackend(inner, largest=4, linger_s=60)
    with ThreadPoolExecutor(9) as threads:
        first = threads.submit(backend.predict_pooled, IMAGES[0])
        wait_until(lambda: inner.sizes == [1])
        others = [threads.submit(backend.predict_pooled, image) for image in IMAGES[1:]]
        wait_until(lambda: inner.sizes == [1, 4, 4])
        inner.released.set()
        results = [future.result() for future in (first, *others)]
    for image, (probabilities, pooled) in zip(IMAGES, results, strict=True):
        expected = StubBackend().predict_pooled(image)
        np.testing.assert_allclose(probabilities, expected[0], atol=1e-6)
        np.testing.assert_allclose(pooled, expected[1], atol=1e-6)


def test_an_image_alone_waits_no_longer_than_allowed() -> None:
    """An idle back end computes an image at once; a busy one computes it alone after `linger_s`."""
    inner = HeldBackend()
    backend = BatchingBackend(inner, largest=4, linger_s=0.01)
    with ThreadPoolExecutor(2) as threads:
        both = [threads.submit(backend.predict_pooled, IMAGES[0])]
        wait_until(lambda: inner.sizes == [1])
        both.append(threads.submit(backend.predict_pooled, IMAGES[1]))
        wait_until(lambda: inner.sizes == [1, 1])
        inner.released.set()
        assert [len(future.result()[0]) for future in both] == [1, 1]


def test_every_caller_of_a_batch_gets_its_error() -> None:
    """If a batch fails, each of its callers gets the error."""
    inner = HeldBackend()
    inner.fails = True
    inner.released.set()
    backend = BatchingBackend(inner, largest=2, linger_s=0.01)
    with ThreadPoolExecutor(4) as threads:
        futures = [threads.submit(backend.predict_pooled, image) for image in IMAGES[:4]]
        for future in futures:
            with pytest.raises(EngineFailed):
                future.result()


def test_a_caller_stops_waiting_at_its_own_deadline() -> None:
    """A caller whose deadline passes gets DeadlineExceeded; the others in its batch still get their results."""
    inner = HeldBackend()
    backend = BatchingBackend(inner, largest=2, linger_s=60)

    def predict(deadline_s: float) -> int:
        with calling(time.monotonic() + deadline_s):
            return len(backend.predict_pooled(IMAGES[0])[0])

    with ThreadPoolExecutor(3) as threads:
        first = threads.submit(predict, 60)
        wait_until(lambda: inner.sizes == [1])
        patient = threads.submit(predict, 60)
        wait_until(lambda: backend.waiting == 1)
        hasty = threads.submit(predict, 0.05)
        with pytest.raises(DeadlineExceeded):
            hasty.result()
        inner.released.set()
        assert (first.result(), patient.result()) == (1, 1)
