"""Threat T26 on a running gateway of known capacity: one prediction at a time, each in 0.2 s."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
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


@contextmanager
def overloaded(gateway: Gateway) -> Iterator[LoadResults]:
    """Send ten times the capacity in the name of `ana`, from before the gateway rejects requests to the block's end.

    The yielded results are complete after the block.
    """
    results, ended = LoadResults(), threading.Event()
    request = build_request(gateway.token(), FOREST)

    def load() -> None:
        while not ended.is_set():
            more = asyncio.run(drive(gateway.port, request, 20, 5, rate=50))
            results.prediction_durations += more.prediction_durations
            results.statuses += more.statuses
            results.interrupted += more.interrupted
            results.seconds += more.seconds

    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(load)
        try:
            wait_until(lambda: gateway.metric('atalaya_shed_total{reason="queue_full"}') > 0)
            yield results
        finally:
            ended.set()
    loading.result()


def test_admitted_requests_stay_fast_under_overload(gateway: Gateway) -> None:
    """T26: at ten times capacity, admitted requests wait little, others get a 503 with Retry-After; /livez responds."""
    client, rejected = gateway.client(), list[httpx.Response]()

    def is_often_rejected() -> bool:
        response = client.post("/v1/predictions", content=FOREST.read_bytes(), headers=JPEG)
        if response.status_code == 503:
            rejected.append(response)
        return len(rejected) >= 9

    alone = asyncio.run(drive(gateway.port, build_request(gateway.token(), FOREST), 1, 2, rate=5))
    with overloaded(gateway) as overload:
        wait_until(is_often_rejected)
        live_s = [client.get("/livez").elapsed.total_seconds() for _ in range(3)]
    assert min(live_s) < LATENCY_S  # /livez waits for no prediction
    assert {response.json()["code"] for response in rejected} == {"overloaded"}
    # About nine of ten requests are rejected. If all callers retried a second later, most would be rejected again.
    waits = [int(response.headers["Retry-After"]) for response in rejected]
    assert min(waits) >= 1
    assert 2 <= max(waits) <= 31
    assert set(overload.statuses) == {200, 503}
    assert overload.interrupted == 0
    assert overload.rate > 0.48 / LATENCY_S  # half of the capacity
    # Not the slowest of so few requests, which a single pause of a busy machine prolongs.
    assert overload.percentile_ms(80) < 3 * alone.percentile_ms(99)


def test_a_busy_caller_does_not_starve_another(gateway: Gateway) -> None:
    """T26: while one caller sends ten times the capacity, nearly every request of another caller is served."""
    gateway.add_user("ben")
    other = gateway.client("ben")
    with overloaded(gateway) as busy:
        statuses = [
            other.post("/v1/predictions", content=FOREST.read_bytes(), headers=JPEG).status_code for _ in range(8)
        ]
    assert statuses.count(200) >= 7
    assert busy.statuses[503] > busy.statuses[200] > 0
