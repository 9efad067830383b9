"""Compare the throughput of this tree's gateway with that of another commit, in alternating rounds of one run.

    python -m bench.compare [REFERENCE] [--pairs 9] [--seconds 1.5]

REFERENCE is a git reference; the default is the newest release in the change log. Both gateways serve their own model
with their default settings. Both restart before each pair of measurements: the speed of one commit differs by several
percent between two of its processes, and the interval assumes that the pairs are independent.

Exit status 0 when this tree is not clearly slower; 1 when the whole confidence interval of the median ratio is below
0.95 for a number of connections; 2 when the comparison cannot be made.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable

from bench.gateways import measure_gateway
from bench.intervals import Interval, median_interval
from bench.releases import ComparisonError, checked_out, find_environment, find_previous_release, running_gateway_of
from bench.rounds import CONNECTIONS, Measure, Rounds, rate, run_rounds
from tests.support.gateway import Gateway
from tests.support.paths import ROOT

THIS, REFERENCE = "this tree", "reference"
MIN_RATIO, CONFIDENCE, MIN_PAIRS = 0.95, 0.95, 7
WARM_UP_S = 1.0


def is_slower(interval: Interval) -> bool:
    """Whether even the upper end of the interval is below the accepted ratio."""
    return interval.high < MIN_RATIO


def format_comparison(results: Rounds, connections: Iterable[int] = CONNECTIONS) -> list[str]:
    """Return a heading and one line for each number of connections."""
    lines = [f"{'connections':>12}{'reference':>12}{'this tree':>12}{'ratio':>8}{'confidence interval':>24}"]
    for count in connections:
        interval = median_interval(results.ratios(THIS, REFERENCE, count), CONFIDENCE)
        rates = "".join(f"{results.median(name, count, rate):>10.1f}/s" for name in (REFERENCE, THIS))
        limits = f"{interval.low:.2f} to {interval.high:.2f} ({interval.confidence:.1%})"
        verdict = "SLOWER" if is_slower(interval) else "ok"
        lines.append(f"{count:>12}{rates}{results.median_ratio(THIS, REFERENCE, count):>8.2f}{limits:>24}   {verdict}")
    return lines


def find_slower(results: Rounds, connections: Iterable[int] = CONNECTIONS) -> list[int]:
    """Return the numbers of connections for which this tree is clearly slower than the reference."""
    intervals = {count: median_interval(results.ratios(THIS, REFERENCE, count), CONFIDENCE) for count in connections}
    return [count for count, interval in intervals.items() if is_slower(interval)]


def measure(reference: str, pairs: int, seconds: float, connections: Iterable[int] = CONNECTIONS) -> Rounds:
    """Measure this tree and the reference in alternating order. Raises ComparisonError."""
    with checked_out(reference) as folder:
        trees = find_environment(ROOT), find_environment(folder)
        with running_gateway_of(trees[0]) as this, running_gateway_of(trees[1]) as other:
            servers = {THIS: measure_gateway(this), REFERENCE: measure_gateway(other)}
            return run_rounds(servers, connections, pairs, seconds, lambda: restart((this, other), servers.values()))


def restart(gateways: Iterable[Gateway], measures: Iterable[Measure]) -> None:
    """Restart the gateways, and warm them up."""
    for gateway in gateways:
        gateway.stop()
        gateway.start()
    for measure_one in measures:
        measure_one(4, WARM_UP_S)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reference", nargs="?", help="a git reference; default: the newest release in CHANGELOG.md")
    parser.add_argument("--pairs", type=int, default=9, help=f"at least {MIN_PAIRS}")
    parser.add_argument("--seconds", type=float, default=1.5, help="of each measurement")
    options = parser.parse_args()
    if options.pairs < MIN_PAIRS:
        parser.error(f"--pairs must be at least {MIN_PAIRS}: fewer cannot show a difference with this confidence")
    try:
        reference = options.reference or find_previous_release()
        print(f"comparing with {reference[:12]}", flush=True)
        results = measure(reference, options.pairs, options.seconds)
    except ComparisonError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(*format_comparison(results), sep="\n")
    slower = find_slower(results)
    if slower:
        print(f"slower than the reference at {' and '.join(map(str, slower))} connections", file=sys.stderr)
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
