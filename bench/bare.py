"""What the machine can do without a gateway: decode and infer in processes of their own, no HTTP, no protection."""

from __future__ import annotations

import multiprocessing
import statistics
import time
from dataclasses import dataclass
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np


@dataclass(frozen=True, slots=True)
class Bare:
    """Predictions a second over all processes, and the median time of one in milliseconds."""

    rate: float
    median_ms: float


def measure(artefact: str, image: Path, processes: int, seconds: float) -> Bare:
    """Classify the same image over and over in so many processes at once."""
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(processes), context.Queue()
    arguments = artefact, image.read_bytes(), seconds, start, results
    workers = [context.Process(target=_work, args=arguments) for _ in range(processes)]
    for worker in workers:
        worker.start()
    durations = [results.get() for _ in workers]
    for worker in workers:
        worker.join()
    return Bare(
        sum(len(some) / sum(some) for some in durations),
        statistics.median(second for some in durations for second in some) * 1000,
    )


def _work(artefact: str, data: bytes, seconds: float, start: Barrier, results: Queue[list[float]]) -> None:
    from model.backends.open import open_backend
    from model.imaging.decode import decode_image

    backend = open_backend(artefact)
    backend.predict(decode_image(data, backend.info.input_spec).pixels[np.newaxis])
    start.wait()
    durations: list[float] = []
    began = last = time.perf_counter()
    while last - began < seconds:
        backend.predict(decode_image(data, backend.info.input_spec).pixels[np.newaxis])
        now = time.perf_counter()
        durations.append(now - last)
        last = now
    results.put(durations)
