"""Show the lower bound of latency while other work uses as much processor time as an overload does.

    python -m bench.parts.floor [--seconds 10] [--busy 0.75]

One process decodes and infers alone, then two do so while a third uses `busy` of a core in slices of a millisecond, as
rejecting requests, committing and generating the load do. There is no HTTP, no queue and no ledger, so work waits only
for a core. No overload policy can make the ratio of the 99th percentiles smaller.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bench.baseline import measure_baseline
from tests.support.paths import FOREST, MODEL_URL

SLICE_S = 0.001


@contextmanager
def busy_process(share: float) -> Iterator[None]:
    """Run a process that uses `share` of a core until the context ends."""
    process = multiprocessing.get_context("spawn").Process(target=_be_busy, args=(share,), daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


def _be_busy(share: float) -> None:
    while True:
        began = time.thread_time()
        while time.thread_time() - began < share * SLICE_S:
            pass
        time.sleep((1 - share) * SLICE_S)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--busy", type=float, default=0.75)
    options = parser.parse_args()
    alone = measure_baseline(MODEL_URL, FOREST.read_bytes(), 1, options.seconds)
    with busy_process(options.busy):
        beside = measure_baseline(MODEL_URL, FOREST.read_bytes(), 2, options.seconds)
    print(f"alone:  {alone.rate:5.1f}/s, median {alone.median_ms:.0f} ms, p99 {alone.p99_ms:.0f} ms")
    print(f"beside: {beside.rate:5.1f}/s, median {beside.median_ms:.0f} ms, p99 {beside.p99_ms:.0f} ms")
    print(f"floor:  {beside.p99_ms / alone.p99_ms:.2f} times alone")


if __name__ == "__main__":
    main()
