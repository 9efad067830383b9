"""A back end and a clock that a test controls, and related helpers."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.backends.stub import StubBackend
from model.serving.service import PredictionService
from tests.support.polling import PATIENCE_S

MakeService = Callable[..., PredictionService]
StageReports = list[tuple[str, float, str]]


class GatedBackend(StubBackend):
    """A stub that predicts only while its gate is open, and counts the calls in progress."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.calls = self.in_progress = self.max_in_progress = 0
        self._lock = threading.Lock()

    def predict_pooled(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        with self._lock:
            self.calls += 1
            self.in_progress += 1
            self.max_in_progress = max(self.max_in_progress, self.in_progress)
        try:
            assert self.gate.wait(PATIENCE_S)
            return super().predict_pooled(pixels)
        finally:
            with self._lock:
                self.in_progress -= 1


class FakeClock:
    """A clock that stands still until the test advances `now`, in seconds."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def png(value: int) -> bytes:
    """Return a PNG of 40x30 pixels in one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), (value, 100, 0)).save(buffer, "PNG")
    return buffer.getvalue()


async def until(condition: Callable[[], bool]) -> None:
    """Run the event loop until the condition holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110  (other threads and tasks change it)
            await asyncio.sleep(0)
