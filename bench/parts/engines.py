"""The time of one inference on each engine that the installed ONNX Runtime has.

    python -m bench.parts.engines [--turns 9] [--threads 1 2]

The engines take turns, so that a busy machine affects all of them alike.
"""

from __future__ import annotations

import argparse
import statistics
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from model.backends.base import Backend
from model.backends.engines import SCHEMES
from model.backends.open import open_warm
from model.imaging.decode import decode_image
from tests.support.paths import ARTEFACT, FOREST

REPEATS = 20  # inferences of each thread in one turn


def measure_rate(backend: Backend, threads: int, pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> float:
    """Return inferences per second of `threads` threads that predict without a pause."""

    def repeat(_: int) -> None:
        for _ in range(REPEATS):
            backend.predict_pooled(pixels)

    with ThreadPoolExecutor(threads) as pool:
        started = time.perf_counter()
        list(pool.map(repeat, range(threads)))
        return threads * REPEATS / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    # Imported after this project's modules, which turn off the library's telemetry.
    import onnxruntime

    schemes = [scheme for scheme, engine in SCHEMES.items() if engine in onnxruntime.get_available_providers()]
    for threads in options.threads:
        backends = {scheme: open_warm(f"{scheme}://{ARTEFACT}", threads) for scheme in schemes}
        spec = next(iter(backends.values())).info.input_spec
        pixels = decode_image(FOREST.read_bytes(), spec).pixels[np.newaxis]
        rates: dict[str, list[float]] = {scheme: [] for scheme in schemes}
        for _ in range(options.turns):
            for scheme, backend in backends.items():
                rates[scheme].append(measure_rate(backend, threads, pixels))
        reference = next(iter(backends.values())).predict(pixels)
        for scheme, backend in backends.items():
            rate = statistics.median(rates[scheme])
            difference = float(np.abs(backend.predict(pixels) - reference).max())
            print(
                f"{scheme:14} {threads:2} threads: {rate:7.1f} inferences/s, "
                f"{threads / rate * 1000:6.2f} ms each, largest difference {difference:.1e}"
            )
            backend.close()


if __name__ == "__main__":
    main()
