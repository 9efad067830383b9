"""Break down the time of a prediction: elapsed time by stage, and processor time by kind of thread.

python -m bench.breakdown [--seconds 6]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from bench.gateways import measured_gateway
from bench.load import build_request, drive
from tests.support.gateway import Gateway
from tests.support.paths import FOREST

Durations = dict[str, float]
CONNECTIONS = (1, 4, 16)
STAGES = ("queue", "decode", "infer", "commit")
OTHER, GATEWAY_TOTAL, CLIENT_TOTAL = "other", "total, measured by the gateway", "total, measured by the client"
INFERENCE, EVENT_LOOP, LEDGER, GENERATOR = "inference", "event loop", "ledger and other threads", "load generator"
# Positions in /proc/PID/stat after the process name.
_NICENESS, _USER_AND_SYSTEM_TICKS = 16, slice(11, 13)


@dataclass(frozen=True, slots=True)
class Breakdown:
    """Milliseconds per prediction: elapsed time by stage, processor time by kind of thread."""

    elapsed: Durations
    processor: Durations


def read_stage_seconds(gateway: Gateway) -> Durations:
    """Return the sums of the gateway's own histograms, by stage and for whole prediction requests."""
    sums: Durations = defaultdict(float)
    for family in text_string_to_metric_families(httpx.get(gateway.metrics_url).text):
        for name, labels, value, *_ in family.samples:
            if name == "atalaya_prediction_stage_seconds_sum":
                sums[labels["stage"]] += value
            elif name == "http_server_request_duration_seconds_sum" and labels["http_route"] == "/v1/predictions":
                sums[GATEWAY_TOTAL] += value
    return sums


def read_thread_seconds(pid: int) -> Durations:
    """Return processor time by kind of thread. Inference threads are those with a raised niceness."""
    seconds: Durations = defaultdict(float)
    for task in Path(f"/proc/{pid}/task").iterdir():
        fields = (task / "stat").read_text().rpartition(")")[2].split()
        is_nice = int(fields[_NICENESS]) > 0
        kind = EVENT_LOOP if task.name == str(pid) else INFERENCE if is_nice else LEDGER
        seconds[kind] += sum(map(int, fields[_USER_AND_SYSTEM_TICKS])) / os.sysconf("SC_CLK_TCK")
    return seconds


def measure(gateway: Gateway, connections: int, seconds: float) -> Breakdown:
    request = build_request(gateway.token(), FOREST)
    stages_before, threads_before = read_stage_seconds(gateway), read_thread_seconds(gateway.pid)
    generator_before = time.process_time()
    results = asyncio.run(drive(gateway.port, request, connections, seconds))
    generator_seconds = time.process_time() - generator_before
    ms_per_prediction = 1000 / len(results.durations)
    processor = _subtract(read_thread_seconds(gateway.pid), threads_before, ms_per_prediction)
    processor[GENERATOR] = generator_seconds * ms_per_prediction
    elapsed = _subtract(read_stage_seconds(gateway), stages_before, ms_per_prediction)
    elapsed[CLIENT_TOTAL] = sum(results.durations) * ms_per_prediction
    elapsed[OTHER] = elapsed[GATEWAY_TOTAL] - sum(elapsed[stage] for stage in STAGES)
    return Breakdown(elapsed, processor)


def _subtract(after: Durations, before: Durations, factor: float) -> Durations:
    return {name: (seconds - before.get(name, 0)) * factor for name, seconds in after.items()}


def _print_section(title: str, names: tuple[str, ...], columns: list[Durations]) -> None:
    print(f"  {title}")
    for name in names:
        print(f"    {name:<37}" + "".join(f"{column[name]:>9.1f}" for column in columns))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=6)
    options = parser.parse_args()
    with measured_gateway() as gateway:
        measure(gateway, 4, 1.0)
        breakdowns = [measure(gateway, connections, options.seconds) for connections in CONNECTIONS]
    header = "".join(f"{connections:>9}" for connections in CONNECTIONS)
    print(f"{'milliseconds per prediction, connections:':<41}{header}")
    _print_section("elapsed time", (*STAGES, OTHER, GATEWAY_TOTAL, CLIENT_TOTAL), [each.elapsed for each in breakdowns])
    _print_section(
        "processor time", (INFERENCE, EVENT_LOOP, LEDGER, GENERATOR), [each.processor for each in breakdowns]
    )


if __name__ == "__main__":
    main()
