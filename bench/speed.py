"""Compare a gateway that has all features on with bare processes, and with a gateway without the ledger.

    python -m bench.speed [--seconds 4] [--rounds 5] [--workers 1] [--overloads 6] [--history]

*Bare* is decoding and inference without a server. The three are measured in turn in every round, so that changes in the
machine's speed affect all of them. Results are medians over the rounds; ratios and differences are computed within each
round first. The gateway without the ledger still counts quotas. `--history` appends a row to bench/history/history.csv.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from dataclasses import dataclass

from bench.gateways import measure_gateway, measured_gateway
from bench.history import Row, append_row, describe_commit, describe_machine, format_today
from bench.overload import RUN_S, RUNS, measure_factor
from bench.rounds import CONNECTIONS, Rounds, measure_bare, p99_ms, rate, run_rounds
from bench.starts import Start, measure_starts
from bench.targets import Target, format_targets
from tests.support.paths import FOREST, MODEL_URL

BARE, GATEWAY, WITHOUT_LEDGER = "bare", "gateway", "without ledger"
STARTS = 5


@dataclass(frozen=True, slots=True)
class Measurement:
    """Everything that one run measures; `overload_factor` is explained in bench/overload.py.

    `start` has medians of several starts on a warm disk. `loaded_mb` is the resident memory of the process and its
    workers after the load.
    """

    rounds: Rounds
    start: Start
    loaded_mb: float
    overload_factor: float


def measure(
    seconds: float,
    rounds: int,
    workers: int,
    overloads: int,
    *,
    overload_s: float = RUN_S,
    model_url: str = MODEL_URL,
    starts: int = STARTS,
) -> Measurement:
    """Measure everything, and print the table as soon as the rounds end."""
    with ExitStack() as stack:
        gateway = stack.enter_context(measured_gateway(model_url, WEB_CONCURRENCY=str(workers)))
        start = measure_starts(gateway, starts)
        without_ledger = stack.enter_context(
            measured_gateway(model_url, WEB_CONCURRENCY=str(workers), LEDGER__ENABLED="false")
        )
        servers = {
            BARE: measure_bare(model_url, FOREST.read_bytes()),
            GATEWAY: measure_gateway(gateway),
            WITHOUT_LEDGER: measure_gateway(without_ledger),
        }
        for warmed_up in (GATEWAY, WITHOUT_LEDGER):
            servers[warmed_up](4, 1.0)
        results = run_rounds(servers, CONNECTIONS, rounds, seconds)
        loaded_mb = gateway.resident_bytes() / 1e6
        print(*format_table(results), sep="\n", flush=True)
        print(f"ready after {start.ready_s:.2f} s, first prediction after {start.first_prediction_s:.2f} s")
        print(f"{start.rest_mb:.0f} MB at rest, {loaded_mb:.0f} MB after the load")
        return Measurement(results, start, loaded_mb, measure_factor(gateway, overloads, overload_s))


def format_table(results: Rounds) -> list[str]:
    """Return a heading and one line for each number of connections."""
    lines = [
        f"{'connections':>12}{'bare':>9}{'gateway':>9}{'ratio':>7}{'added':>11}{'p99':>9}{'failed':>8}"
        "   without the ledger"
    ]
    for connections in CONNECTIONS:
        bare, gateway, without = (results.median(name, connections, rate) for name in (BARE, GATEWAY, WITHOUT_LEDGER))
        cost = 1 - results.median_ratio(GATEWAY, WITHOUT_LEDGER, connections)
        ledger = f"{without:>6.1f}/s, ledger costs {cost:>5.1%}"
        added = ""
        if connections == 1:
            added = f"{results.added_ms(GATEWAY, BARE, 1):.1f} ms"
            ledger += f" and {results.added_ms(GATEWAY, WITHOUT_LEDGER, 1):.1f} ms"
        lines.append(
            f"{connections:>12}{bare:>7.1f}/s{gateway:>7.1f}/s{results.median_ratio(GATEWAY, BARE, connections):>7.2f}"
            f"{added:>11}{results.median(GATEWAY, connections, p99_ms):>6.0f} ms"
            f"{results.failed(GATEWAY, connections):>8}   {ledger}"
        )
    return lines


def list_targets(measurement: Measurement) -> list[Target]:
    results, start = measurement.rounds, measurement.start
    ratios = [
        Target(f"ratio at {connections} connections", results.median_ratio(GATEWAY, BARE, connections), 0.9, "", True)
        for connections in (4, 16)
    ]
    return [
        *ratios,
        Target("added at one connection", results.added_ms(GATEWAY, BARE, 1), 2.0, "ms"),
        Target("memory at rest", start.rest_mb, 200, "MB"),
        Target("ready", start.ready_s, 1.0, "s"),
        Target("first prediction", start.first_prediction_s, 1.5, "s"),
        Target("latency at ten times capacity", measurement.overload_factor, 3.0, "x"),
    ]


def make_row(measurement: Measurement, rounds: int) -> Row:
    """Return the row of bench/history/history.csv for this run, on this commit and machine."""
    results, start = measurement.rounds, measurement.start
    return Row(
        format_today(),
        describe_commit(),
        describe_machine(),
        rounds,
        results.median_ratio(GATEWAY, BARE, 1),
        results.median_ratio(GATEWAY, BARE, 4),
        results.median_ratio(GATEWAY, BARE, 16),
        results.added_ms(GATEWAY, BARE, 1),
        start.rest_mb,
        measurement.loaded_mb,
        start.ready_s,
        measurement.overload_factor,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--overloads", type=int, default=RUNS, help="runs at ten times capacity")
    parser.add_argument("--history", action="store_true", help="append a row to bench/history/history.csv")
    options = parser.parse_args()
    measurement = measure(options.seconds, options.rounds, options.workers, options.overloads)
    print(*format_targets(list_targets(measurement)), sep="\n")
    if options.history:
        append_row(make_row(measurement, options.rounds))


if __name__ == "__main__":
    main()
