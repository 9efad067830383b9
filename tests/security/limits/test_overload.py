"""Threat T26 on a running gateway of known capacity: one prediction at a time, each in 0.2 s."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from bench.load import LoadResults, build_request, drive
from tests.support.gateway import Gateway
from tests.support.paths import FOREST
from tests.support.polling import wait_until

LATENCY_S = 0.2
JPEG = {"Content-Type": "image/jpeg"}


@pytest.fixture
def gateway(new_gateway: Callable[..., Gateway]) -> Gateway:
    return new_gateway(MODEL__URL=f"stub://?latency_ms={LATENCY_S * 1000:.0f}", MODEL__WORKERS="1")


def wait_until_overloaded(gateway: Gateway) -> None:
    """Wait until the gateway rejects requests because of the load."""
    wait_until(lambda: gateway.metric('atalaya_shed_total{reason="queue_full"}') > 0)


def test_admitted_requests_stay_fast_under_overload(gateway: Gateway) -> None:
    """T26: at ten times capacity, admitted requests wait little, others get a 503 with Retry-After; /livez responds."""
    client = gateway.client()
    request = build_request(gateway.token(), FOREST)

    def load(connections: int, seconds: float, rate: float) -> LoadResults:
        return asyncio.run(drive(gateway.port, request, connections, seconds, rate=rate))

    alone = load(1, 2, 5)
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(load, 20, 5, 50)
        wait_until_overloaded(gateway)
        responses = [client.post("/v1/predictions", content=FOREST.read_bytes(), headers=JPEG) for _ in range(10)]
        live_s = [client.get("/livez").elapsed.total_seconds() for _ in range(3)]
        overload = loading.result()
    assert min(live_s) < LATENCY_S  # /livez waits for no prediction
    rejected = [response for response in responses if response.status_code == 503]
    assert rejected
    assert {response.json()["code"] for response in rejected} == {"overloaded"}
    # About nine of ten requests are rejected. If all callers retried a second later, most would be rejected again.
    waits = [int(response.headers["Retry-After"]) for response in rejected]
    assert min(waits) >= 1
    assert 2 <= max(waits) <= 31
    assert set(overload.statuses) == {200, 503}
    assert overload.interrupted == 0
    assert overload.statuses[200] > 12  # of the 25 that fit into five seconds
    # Not the slowest of so few requests, which a single pause of a busy machine prolongs.
    assert overload.percentile_ms(80) < 3 * alone.percentile_ms(99)


def test_a_busy_caller_does_not_starve_another(gateway: Gateway) -> None:
    """T26: while one caller sends ten times the capacity, nearly every request of another caller is served."""
    gateway.add_user("ben")
    request, other = build_request(gateway.token("ana"), FOREST), gateway.client("ben")
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(asyncio.run, drive(gateway.port, request, 20, 7, rate=50))
        wait_until_overloaded(gateway)
        statuses = [
            other.post("/v1/predictions", content=FOREST.read_bytes(), headers=JPEG).status_code for _ in range(8)
        ]
        busy = loading.result().statuses
    assert statuses.count(200) >= 7
    assert busy[503] > busy[200] > 0
