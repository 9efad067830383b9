"""Measure the machine without a gateway: decoding and inference in separate processes, without HTTP."""

from __future__ import annotations

import multiprocessing
import statistics
import time
from dataclasses import dataclass
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier

import numpy as np

_MIN_DURATIONS = 2  # percentiles need two


@dataclass(frozen=True, slots=True)
class Baseline:
    """Predictions per second of all processes together, and their median and 99th percentile in milliseconds."""

    rate: float
    median_ms: float
    p99_ms: float


def measure_baseline(model_url: str, image: bytes, processes: int, seconds: float) -> Baseline:
    """Classify the same image repeatedly in several processes at once."""
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(processes), context.Queue()
    arguments = model_url, image, seconds, start, results
    workers = [context.Process(target=_classify_repeatedly, args=arguments) for _ in range(processes)]
    for worker in workers:
        worker.start()
    durations = [results.get() for _ in workers]
    for worker in workers:
        worker.join()
    rate = sum(len(of_worker) / sum(of_worker) for of_worker in durations)
    percentiles = statistics.quantiles((duration for of_worker in durations for duration in of_worker), n=100)
    return Baseline(rate, percentiles[49] * 1000, percentiles[98] * 1000)


def _classify_repeatedly(
    model_url: str, data: bytes, seconds: float, start: Barrier, results: Queue[list[float]]
) -> None:
    from model.backends.open import open_backend
    from model.imaging.decode import decode_image

    backend = open_backend(model_url)
    spec = backend.info.input_spec
    backend.predict(decode_image(data, spec).pixels[np.newaxis])
    start.wait()
    durations: list[float] = []
    started = last = time.perf_counter()
    while last - started < seconds or len(durations) < _MIN_DURATIONS:
        backend.predict(decode_image(data, spec).pixels[np.newaxis])
        now = time.perf_counter()
        durations.append(now - last)
        last = now
    results.put(durations)
