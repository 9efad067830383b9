"""Predict images with only the processor time that nothing else wants, as beside a gateway that serves requests.

The kernel runs the thread only when no other thread wants a processor (SCHED_IDLE). That alone would not do: also an
idle thread uses up a container's processor quota, and displaces the caches of its neighbours. So the thread measures
how much of its time it got a processor, and pauses as long as it gets too little.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.backends.base import Backend
from model.offline.dataset import decode_file

LEAST_SHARE = 0.7
"""Of the time that an image takes, for which the thread must have had a processor: otherwise others want it."""

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class BackgroundOutputs:
    """Raw `probabilities` of n images, float32 [n, classes], and the SHA-256 of each file.

    `paused_s` is how long the thread waited for others in all.
    """

    probabilities: NDArray[np.float32]
    digests: tuple[bytes, ...]
    paused_s: float


class Pacer:
    """Decides after each image how long to pause: twice as long each time, while others want the processor."""

    def __init__(self) -> None:
        self._pause_s = 0.0

    def find_pause(self, elapsed_s: float, processor_s: float) -> float:
        """Return the pause after an image that took so long, and so much processor time; all in seconds."""
        if processor_s >= LEAST_SHARE * elapsed_s:
            self._pause_s = 0.0
        else:
            self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S) or _FIRST_PAUSE_S
        return self._pause_s


def predict_in_background(
    backend: Backend,
    paths: Sequence[Path],
    progress: Callable[[int], object] = lambda _: None,
    sleep: Callable[[float], object] = time.sleep,
) -> BackgroundOutputs:
    """Predict the images one after another; the outputs have their order.

    Calls `progress` with the number of images done so far; what it raises ends the work. Raises DatasetError when a
    file cannot be decoded.
    """
    rows: list[NDArray[np.float32]] = []
    digests: list[bytes] = []
    paused_s = 0.0
    with ThreadPoolExecutor(1, initializer=_yield_processors) as thread:
        pacer = Pacer()
        for path in paths:
            row, digest, pause_s = thread.submit(_predict, backend, path, pacer).result()
            rows.append(row)
            digests.append(digest)
            progress(len(rows))
            sleep(pause_s)
            paused_s += pause_s
    return BackgroundOutputs(np.concatenate(rows), tuple(digests), paused_s)


def _predict(backend: Backend, path: Path, pacer: Pacer) -> tuple[NDArray[np.float32], bytes, float]:
    content = path.read_bytes()  # a slow disk says nothing about processors
    started, used = time.monotonic(), time.thread_time()
    pixels = decode_file(path, content, backend.info.input_spec).pixels
    row = backend.predict(pixels[np.newaxis])
    pause_s = pacer.find_pause(time.monotonic() - started, time.thread_time() - used)
    return row, hashlib.sha256(content).digest(), pause_s


def _yield_processors() -> None:
    """Let every other thread of the machine go first."""
    with suppress(OSError):  # a sandbox that does not allow it: the pauses remain
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))  # 0: this thread
