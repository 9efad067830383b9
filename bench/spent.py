"""Where the time of a prediction goes: on the clock by stage, on the processors by thread.

python -m bench.spent [--seconds 6]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections import defaultdict
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from bench.load import build_request, drive
from tests.support.gateway import Gateway, running_gateway
from tests.support.paths import FOREST

Spent = dict[str, float]
CONNECTIONS = (1, 4, 16)
STAGES = ("queue", "decode", "infer", "commit")
_NICE, _TICKS = 16, slice(11, 13)  # of the fields of /proc/PID/stat behind the name
_REST, _ALL, _CLIENT = "the rest", "the gateway", "the client"
_LOOP, _INFER, _OTHERS, _LOAD = "event loop", "inference", "ledger, others", "load generator"


def stage_seconds(gateway: Gateway) -> Spent:
    """What the gateway's own histograms have added up so far; `_ALL` is whole requests for predictions."""
    text = httpx.get(gateway.metrics_url).text
    sums: Spent = defaultdict(float)
    for family in text_string_to_metric_families(text):
        for name, labels, value, *_ in family.samples:
            if name == "atalaya_prediction_stage_seconds_sum":
                sums[labels["stage"]] += value
            elif name == "http_server_request_duration_seconds_sum" and labels["http_route"] == "/v1/predictions":
                sums[_ALL] += value
    return sums


def thread_seconds(pid: int) -> Spent:
    """Processor time of the kinds of threads; those that infer are told by their niceness."""
    spent: Spent = defaultdict(float)
    for task in Path(f"/proc/{pid}/task").iterdir():
        fields = (task / "stat").read_text().rpartition(")")[2].split()
        nice = int(fields[_NICE]) > 0
        kind = _LOOP if task.name == str(pid) else _INFER if nice else _OTHERS
        spent[kind] += sum(map(int, fields[_TICKS])) / os.sysconf("SC_CLK_TCK")
    return spent


def measure(gateway: Gateway, connections: int, seconds: float) -> tuple[Spent, Spent]:
    """Spent a request: by stage, and by thread."""
    before = stage_seconds(gateway), thread_seconds(gateway.pid)
    own = time.process_time()
    load = asyncio.run(drive(gateway.port, build_request(gateway.token(), FOREST), connections, seconds))
    own = time.process_time() - own
    each = 1000 / len(load.durations)
    threads = _passed(before[1], thread_seconds(gateway.pid), each) | {_LOAD: own * each}
    stages = _passed(before[0], stage_seconds(gateway), each) | {_CLIENT: sum(load.durations) * each}
    stages[_REST] = stages[_ALL] - sum(stages[stage] for stage in STAGES)
    return stages, threads


def _passed(before: Spent, after: Spent, factor: float) -> Spent:
    return {name: (after[name] - before.get(name, 0)) * factor for name in after}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=6)
    options = parser.parse_args()
    with running_gateway() as gateway:
        measure(gateway, 4, 1.0)
        columns = [measure(gateway, connections, options.seconds) for connections in CONNECTIONS]
    print("milliseconds a prediction, by connections" + "".join(f"{connections:>9}" for connections in CONNECTIONS))
    for title, part, names in (
        ("on the clock", 0, (*STAGES, _REST, _ALL, _CLIENT)),
        ("on the processors", 1, (_INFER, _LOOP, _OTHERS, _LOAD)),
    ):
        print(f"  {title}")
        for name in names:
            print(f"    {name:<37}" + "".join(f"{column[part][name]:>9.1f}" for column in columns))


if __name__ == "__main__":
    main()
