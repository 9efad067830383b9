"""Threats T24 and T25 for rate limits, on running gateways that share a Redis server or a machine."""

from __future__ import annotations

import re
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx
import pytest

from api.rate_limits.redis_windows import REPLY_LIMIT_S
from tests.support.gateway import TIMEOUT_S, Gateway, make_gateway
from tests.support.paths import FOREST
from tests.support.polling import wait_until
from tests.support.redis import Redis

IMAGE = FOREST.read_bytes()
PATIENT = {"MODEL__QUEUE_SECONDS": "60"}  # eight callers do not overload a slow machine

# `atalaya` without the limit after which a gateway no longer waits for Redis.
WAIT_FOR_REDIS = f"""
from api.rate_limits import redis_windows
redis_windows.REPLY_LIMIT_S = {TIMEOUT_S}
from api.cli import main
main()
"""


def predict_at(urls: list[str], token: str, count: int) -> list[httpx.Response]:
    """Request `count` predictions, from the URLs in turn, each on its own connection."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "image/jpeg"}
    no_reuse = httpx.Limits(max_keepalive_connections=0)
    with ThreadPoolExecutor(8) as pool, httpx.Client(headers=headers, limits=no_reuse, timeout=TIMEOUT_S) as client:

        def predict(number: int) -> httpx.Response:
            return client.post(f"{urls[number % len(urls)]}/v1/predictions", content=IMAGE)

        return list(pool.map(predict, range(count)))


def count_statuses(responses: list[httpx.Response]) -> Counter[int]:
    return Counter(response.status_code for response in responses)


def read_policy(response: httpx.Response) -> str:
    policy: str = response.headers["RateLimit-Policy"]
    return policy


def limits_state(gateway: Gateway) -> str:
    response = gateway.get("/readyz")
    assert response.status_code == 200
    state: str = response.json()["checks"]["limits"]
    return state


@pytest.fixture
def pair(redis_server: Redis, tmp_path: Path) -> Iterator[list[Gateway]]:
    """Two gateways that share a Redis, and wait for it as long as it needs on a busy machine."""
    (tmp_path / "one").mkdir()
    settings = {"MODEL__URL": "stub://", "REDIS_URL": redis_server.url, "LIMITS__PREDICT": "30/hour", **PATIENT}
    one = make_gateway(tmp_path / "one", **settings)
    gateways = [one, one.replica(tmp_path / "two")]
    try:
        for gateway in gateways:
            gateway.command = [sys.executable, "-c", WAIT_FOR_REDIS, "serve"]
            gateway.start()
            wait_until(partial(is_store_up, gateway, "redis"))  # opening it has a limit of its own
        yield gateways
    finally:
        for gateway in gateways:
            assert not gateway.is_running or gateway.stop() == 0


def is_store_up(gateway: Gateway, store: str) -> bool:
    return gateway.metric(f'atalaya_limit_store_up{{store="{store}"}}') == 1


def test_a_rate_is_exact_over_two_gateways(pair: list[Gateway]) -> None:
    """T24: two gateways that share a Redis together allow exactly the limit, and report the true remainder."""
    one, two = pair
    responses = predict_at([one.base_url, two.base_url], one.token(), 60)
    assert count_statuses(responses) == {200: 30, 429: 30}
    allowed = [response for response in responses if response.status_code == 200]
    left = {int(response.headers["RateLimit"].split(";")[1].removeprefix("r=")) for response in allowed}
    assert left == set(range(30))
    assert limits_state(one) == limits_state(two) == "ok"


def test_a_rate_is_exact_over_the_workers_of_a_machine(new_gateway: Callable[..., Gateway]) -> None:
    """T24: without Redis the workers of one gateway together allow exactly the limit."""
    limits = {"LIMITS__PREDICT": "30/hour", "LIMITS__TOKEN": "2/hour"}
    gateway = new_gateway(MODEL__URL="stub://", WEB_CONCURRENCY="2", **limits, **PATIENT)
    wait_until(lambda: gateway.log().count('"worker_ready"') == 2 and is_store_up(gateway, "machine"))
    responses = predict_at([gateway.base_url], gateway.token(), 60)
    assert count_statuses(responses) == {200: 30, 429: 30}
    rejected = next(response for response in responses if response.status_code == 429)
    assert rejected.headers["RateLimit-Policy"] == '"predict";q=30;w=3600'
    assert 3000 < int(rejected.headers["Retry-After"]) <= 3600
    statuses = [gateway.log_in("ana", "wrong horse battery").status_code for _ in range(4)]
    assert sorted(statuses) == [400, 429, 429, 429]


def test_an_outage_of_redis_halves_the_rate_and_blocks_no_request(
    new_gateway: Callable[..., Gateway], redis_server: Redis
) -> None:
    """T25: while Redis hangs, half of the rate applies and no request waits; the outage is reported and counted."""
    gateway = new_gateway(MODEL__URL="stub://", REDIS_URL=redis_server.url, LIMITS__PREDICT="40/hour", **PATIENT)
    token = gateway.token()
    wait_until(lambda: limits_state(gateway) == "ok")
    redis_server.send(signal.SIGSTOP)
    with ThreadPoolExecutor(1) as pool, httpx.Client(base_url=gateway.base_url, timeout=TIMEOUT_S) as client:
        predicting, slowest = pool.submit(predict_at, [gateway.base_url], token, 40), 0.0
        while not predicting.done():
            slowest = max(slowest, client.get("/livez").elapsed.total_seconds())
    assert slowest < REPLY_LIMIT_S  # an event loop that waited for Redis would delay /livez by as much
    responses = predicting.result()
    assert count_statuses(responses) == {200: 20, 429: 20}
    assert set(map(read_policy, responses)) == {'"predict";q=20;w=3600'}
    assert limits_state(gateway) == "reduced"
    assert not is_store_up(gateway, "redis")
    assert gateway.metric('atalaya_limit_fallbacks_total{store="redis"}') >= 40
    redis_server.send(signal.SIGCONT)
    # On a busy machine, Redis may need more than the limit again.
    wait_until(lambda: limits_state(gateway) == "ok" and is_store_up(gateway, "redis"))
    wait_until(lambda: read_policy(predict_at([gateway.base_url], token, 1)[0]) == '"predict";q=40;w=3600')
    wait_until(lambda: limits_state(gateway) == "ok")
    events = re.findall(r'"limits_(\w+)"', gateway.complete_log())
    assert events == ["reduced", "restored"] * max(1, len(events) // 2)
    assert "redis://" not in gateway.log()
