"""Threats T24 and T25 for rate limits, on running gateways that share a Redis server or a machine."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from api.rate_limits.redis_windows import REPLY_LIMIT_S
from tests.support.gateway import TIMEOUT_S, Gateway
from tests.support.paths import FOREST
from tests.support.polling import wait_until
from tests.support.redis import Redis

IMAGE = FOREST.read_bytes()
PATIENT = {"MODEL__QUEUE_SECONDS": "60"}  # eight callers do not overload a slow machine


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


def limits_state(gateway: Gateway) -> str:
    response = gateway.get("/readyz")
    assert response.status_code == 200
    state: str = response.json()["checks"]["limits"]
    return state


def test_a_rate_is_exact_over_two_gateways(
    new_gateway: Callable[..., Gateway], redis_server: Redis, tmp_path: Path
) -> None:
    """T24: two gateways that share a Redis together allow exactly the limit, and report the true remainder."""
    one = new_gateway(MODEL__URL="stub://", REDIS_URL=redis_server.url, LIMITS__PREDICT="30/hour", **PATIENT)
    two = one.replica(tmp_path / "replica")
    two.start()
    try:
        responses = predict_at([one.base_url, two.base_url], one.token(), 60)
        assert count_statuses(responses) == {200: 30, 429: 30}
        allowed = [response for response in responses if response.status_code == 200]
        left = {int(response.headers["RateLimit"].split(";")[1].removeprefix("r=")) for response in allowed}
        assert left == set(range(30))
        assert limits_state(one) == limits_state(two) == "ok"
    finally:
        assert two.stop() == 0


def test_a_rate_is_exact_over_the_workers_of_a_machine(new_gateway: Callable[..., Gateway]) -> None:
    """T24: without Redis the workers of one gateway together allow exactly the limit."""
    limits = {"LIMITS__PREDICT": "30/hour", "LIMITS__TOKEN": "2/hour"}
    gateway = new_gateway(MODEL__URL="stub://", WEB_CONCURRENCY="2", **limits, **PATIENT)
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
    assert limits_state(gateway) == "ok"
    redis_server.send(signal.SIGSTOP)
    with ThreadPoolExecutor(1) as pool, httpx.Client(base_url=gateway.base_url, timeout=TIMEOUT_S) as client:
        predicting, slowest = pool.submit(predict_at, [gateway.base_url], token, 40), 0.0
        while not predicting.done():
            slowest = max(slowest, client.get("/livez").elapsed.total_seconds())
    assert slowest < REPLY_LIMIT_S  # an event loop that waited for Redis would delay /livez by as much
    responses = predicting.result()
    assert count_statuses(responses) == {200: 20, 429: 20}
    assert {response.headers["RateLimit-Policy"] for response in responses} == {'"predict";q=20;w=3600'}
    assert limits_state(gateway) == "reduced"
    assert gateway.metric('atalaya_limit_store_up{store="redis"}') == 0
    assert gateway.metric('atalaya_limit_fallbacks_total{store="redis"}') >= 40
    redis_server.send(signal.SIGCONT)
    wait_until(lambda: limits_state(gateway) == "ok")
    assert gateway.metric('atalaya_limit_store_up{store="redis"}') == 1
    (response,) = predict_at([gateway.base_url], token, 1)
    assert response.headers["RateLimit-Policy"] == '"predict";q=40;w=3600'
    events = [line for line in gateway.complete_log().splitlines() if '"limits_' in line]
    assert len(events) == 2
    assert "redis://" not in gateway.log()
