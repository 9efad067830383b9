"""Send a gateway ten times the load that it can serve, and check the latency of the requests that it admits.

    python -m tests.experiments.overload [--seconds 20] [--times 10]

Exit status 0 if the 99th percentile of admitted requests stays under three times that of a single caller, every other
response is a 503, memory stays flat, /livez responds within 50 ms and the gateway is ready afterwards; 1 otherwise.
"""

from __future__ import annotations

import argparse
import sys

from bench.gateways import measured_gateway
from bench.overload import measure_overload

MAX_TIMES_P99, MAX_LIVEZ_MS, MAX_GROWTH_MB = 3.0, 50.0, 20.0


def run(seconds: float, times: float) -> list[str]:
    """Print the measurements and return the aims that were missed."""
    with measured_gateway() as gateway:
        overload = measure_overload(gateway, seconds, times)
        readiness = gateway.get("/readyz").status_code
    alone, capacity, load, watch = overload.alone, overload.capacity, overload.load, overload.watch
    offered = len(load.durations) / load.seconds
    ratio = overload.factor(99)
    growth = max(watch.megabytes) - watch.megabytes[0]
    livez = sorted(watch.livez_ms)
    p50, p99 = load.percentile_ms(50), load.percentile_ms(99)
    print(f"alone:    {alone.rate:6.1f}/s, p99 {alone.percentile_ms(99):.0f} ms; capacity {capacity.rate:.1f}/s")
    outcome = f"{dict(load.statuses)}, {load.interrupted} interrupted"
    print(f"overload: {offered:6.1f}/s, {offered / capacity.rate:.1f} times; {outcome}")
    print(f"admitted: {load.rate:6.1f}/s, p50 {p50:.0f} ms, p99 {p99:.0f} ms, {ratio:.2f} times alone")
    print(f"/livez:   median {livez[len(livez) // 2]:.1f} ms, slowest {livez[-1]:.1f} ms; {growth:.1f} MB more")
    missed = {
        f"admitted requests took {ratio:.2f} times as long as alone": ratio > MAX_TIMES_P99,
        f"/livez took {livez[-1]:.0f} ms": livez[-1] > MAX_LIVEZ_MS,
        f"memory grew by {growth:.0f} MB": growth > MAX_GROWTH_MB,
        f"statuses {dict(load.statuses)}": not set(load.statuses) <= {200, 503} or load.interrupted > 0,
        "the gateway was not ready afterwards": readiness != 200,
    }
    return [aim for aim, is_missed in missed.items() if is_missed]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--times", type=float, default=10)
    options = parser.parse_args()
    missed = run(options.seconds, options.times)
    for aim in missed:
        print(f"missed: {aim}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
