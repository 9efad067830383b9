"""Predict images with only idle processor time, for example next to a gateway that serves requests.

The kernel runs the thread only when no other thread needs a processor (SCHED_IDLE). That is not sufficient: even such a
thread uses a container's processor quota, and displaces the caches of other threads. So the thread also measures the
share of time for which it had a processor, and pauses while that share is too small.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from model.backends.base import Backend
from model.offline.dataset import decode_file, read_file

MIN_SHARE = 0.7
"""If the thread had a processor for a smaller share of an image's time, other threads need the processors."""

_FIRST_PAUSE_S = 0.1
_MAX_PAUSE_S = 0.5


class BackgroundOutputs(Struct, frozen=True, eq=False):
    """Raw `probabilities` of n images, float32 [n, classes], and the SHA-256 of each file.

    `paused_s` is the total time for which the thread paused.
    """

    probabilities: NDArray[np.float32]
    digests: tuple[bytes, ...]
    paused_s: float


class Pacer:
    """Decides how long to pause after each image. The pause doubles while other threads need the processors."""

    def __init__(self) -> None:
        self._pause_s = 0.0

    def find_pause(self, elapsed_s: float, processor_s: float) -> float:
        """Return the pause after an image, from its elapsed and its processor time; all in seconds."""
        if processor_s >= MIN_SHARE * elapsed_s:
            self._pause_s = 0.0
        else:
            self._pause_s = min(2 * self._pause_s, _MAX_PAUSE_S) or _FIRST_PAUSE_S
        return self._pause_s


def predict_in_background(
    backend: Backend,
    paths: Sequence[Path],
    progress: Callable[[int], object] = lambda _: None,
    sleep: Callable[[float], object] = time.sleep,
) -> BackgroundOutputs:
    """Predict the images one by one, and return the outputs in the order of `paths`.

    Calls `progress` with the number of images done so far; an exception from it ends the work. Raises DatasetError if
    a file is too large or cannot be decoded.
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
    content = read_file(path)  # not measured: a slow disk does not mean that processors are busy
    started, used = time.monotonic(), time.thread_time()
    pixels = decode_file(path, content, backend.info.input_spec).pixels
    row = backend.predict(pixels[np.newaxis])
    pause_s = pacer.find_pause(time.monotonic() - started, time.thread_time() - used)
    return row, hashlib.sha256(content).digest(), pause_s


def _yield_processors() -> None:
    """Have the kernel run this thread only when processors are idle."""
    with suppress(OSError):  # forbidden in some sandboxes; the pauses still work
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))  # 0: this thread
