"""A back end that answers when the test lets it, and what goes with it."""

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

Make = Callable[..., PredictionService]
Reports = list[tuple[str, float, str]]


class GatedBackend(StubBackend):
    """A stub that answers only while its gate is open, and counts who is inside."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.calls = self.inside = self.most_inside = 0
        self._count = threading.Lock()

    def predict(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        with self._count:
            self.calls += 1
            self.inside += 1
            self.most_inside = max(self.most_inside, self.inside)
        try:
            assert self.gate.wait(timeout=10)
            return super().predict(pixels)
        finally:
            with self._count:
                self.inside -= 1


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), (value, 100, 0)).save(buffer, "PNG")
    return buffer.getvalue()


async def until(condition: Callable[[], bool]) -> None:
    """Let the event loop run until the condition holds."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110  (it changes in other threads)
            await asyncio.sleep(0)
