"""The simulation of many gateways."""

from __future__ import annotations

import statistics
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from bench.scale.cluster import Cluster, Deployment
from bench.scale.costs import Costs, read_costs, write_costs
from bench.scale.events import Clock, Lock, Station
from bench.scale.simulate import format_runs, list_changes, reproduce, simulate

COSTS = Costs(
    machine="2 x made up",
    date="2026-11-26",
    request_s=0.003,
    writer_transaction_s=0.0005,
    writer_entry_s=0.0005,
    inference_s=[0.02],
    redis_s=0.0001,
    redis_bytes=200,
    transaction_s=0.001,
    entry_s=0.001,
    commit_wait_s=0.002,
    connections=6,
    entry_bytes=2000,
    wal_bytes=3000,
    observations=[],
)
SMALL = Deployment(gateways=4, engines=2, engine_slots=4, database_cores=2, callers=100)


def test_a_station_serves_in_order() -> None:
    """Two servers work on three requests: the third begins when the first has ended."""
    clock, ended = Clock(), list[tuple[str, float]]()
    station = Station(clock, 2)

    def note(name: str) -> None:
        ended.append((name, clock.now))

    for name, seconds in (("a", 1.0), ("b", 3.0), ("c", 1.0)):
        station.serve(seconds, partial(note, name))
    clock.run(4.0)
    assert ended == [("a", 1.0), ("c", 2.0), ("b", 3.0)]
    assert station.utilisation == pytest.approx(5 / 8)


def test_a_lock_is_held_by_one() -> None:
    """A lock is granted in the order of the requests for it."""
    lock, order = Lock(), list[str]()
    for name in ("a", "b"):
        lock.acquire(partial(order.append, name))
    assert order == ["a"]
    lock.release()
    assert order == ["a", "b"]


def test_random_arrivals_wait_as_long_as_theory_says() -> None:
    """At a server that is busy half of the time, random arrivals wait for half a service time on average (M/D/1)."""
    costs = replace(COSTS, redis_s=0.01, inference_s=[0.0], request_s=0.0)
    costs = replace(costs, writer_transaction_s=0.0, writer_entry_s=0.0)
    cluster = Cluster(SMALL, replace(costs, transaction_s=0.0, entry_s=0.0, commit_wait_s=0.0))
    cluster.offer(50, 400)
    assert cluster.redis.utilisation == pytest.approx(0.5, rel=0.05)
    assert statistics.mean(cluster.latencies) == pytest.approx(0.015, rel=0.1)


def test_a_request_without_a_queue_takes_the_sum_of_its_parts() -> None:
    """On one connection there is no queue: a request takes the sum of its parts."""
    cluster = Cluster(SMALL, COSTS)
    cluster.send_repeatedly(1, 1.0)
    assert cluster.latencies == pytest.approx([0.0281] * 35)


@pytest.mark.parametrize(
    ("change", "limit"),
    [
        ({"gateways": 1}, "gateways"),
        ({"engine_slots": 1}, "engines"),
        ({"database_cores": 1}, "PostgreSQL"),
        ({"callers": 1}, "rows"),
    ],
)
def test_the_first_part_to_saturate_is_named(change: dict[str, int], limit: str) -> None:
    """The part with too little capacity for the rate is named as the limit; if all have enough, none is."""
    enough = Deployment(gateways=8, engines=2, engine_slots=32, database_cores=4, callers=10_000)
    assert simulate("enough", enough, COSTS, 1500, 2).limit == ""
    assert simulate("too little", replace(enough, **change), COSTS, 1500, 2).limit == limit


def test_tables_have_a_line_for_each_run() -> None:
    """The table has one line for each simulated change of a deployment, which begins with its name."""
    names = [name for name, _ in list_changes(SMALL)]
    runs = [simulate(name, changed, COSTS, 100, 1) for name, changed in list_changes(SMALL)]
    heading, *lines = format_runs(runs)
    assert heading.split()[:3] == ["done", "p50", "p99"]
    assert [line.startswith(name) for line, name in zip(lines, names, strict=True)] == [True] * len(names)


def test_costs_are_read_as_they_were_written(tmp_path: Path) -> None:
    """Costs that were written to a file are read back unchanged."""
    costs = read_costs()
    write_costs(costs, path := tmp_path / "measured.json")
    assert read_costs(path) == costs


@pytest.mark.parametrize("number", [0, 1, 2], ids=["1 connection", "4 connections", "16 connections"])
def test_the_simulation_agrees_with_a_real_gateway(number: int) -> None:
    """From its costs alone, the simulation reproduces the measured rate of a gateway to within 25 %."""
    costs = read_costs()
    observed = costs.observations[number]
    assert reproduce(costs, observed) == pytest.approx(observed.rate, rel=0.25)
