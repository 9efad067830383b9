"""Lines 24 and 25 of the security list for rates, on running gateways that share a Redis or a machine."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

FOREST = (Path(__file__).parents[2] / "samples" / "yellowstone_forest.jpg").read_bytes()


def predict_at(urls: list[str], token: str, count: int) -> list[httpx.Response]:
    """So many predictions by turns at the addresses, each on a connection of its own."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "image/jpeg"}
    no_reuse = httpx.Limits(max_keepalive_connections=0)
    with ThreadPoolExecutor(8) as pool, httpx.Client(headers=headers, limits=no_reuse, timeout=30) as client:

        def one(number: int) -> httpx.Response:
            return client.post(f"{urls[number % len(urls)]}/v1/predictions", content=FOREST)

        return list(pool.map(one, range(count)))


def metric(gateway: Any, sample: str) -> float:
    lines = httpx.get(gateway.metrics_url).text.splitlines()
    (value,) = [line.rpartition(" ")[2] for line in lines if line.startswith(f"{sample} ")]
    return float(value)


def limits_word(gateway: Any) -> str:
    answer = httpx.get(f"{gateway.base_url}/readyz")
    assert answer.status_code == 200
    word: str = answer.json()["checks"]["limits"]
    return word


def wait_for_word(gateway: Any, word: str) -> None:
    deadline = time.monotonic() + 5
    while limits_word(gateway) != word:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_line_24_a_rate_is_exact_over_two_gateways(
    new_gateway: Callable[..., Any], redis_server: Any, tmp_path: Path
) -> None:
    """Two gateways that share a Redis let through together exactly what one would, and say truly what is left."""
    same = {
        "AUTH__ISSUER": "http://localhost",
        "DRAIN_SECONDS": "0",
        "REDIS_URL": redis_server.url,
        "LIMITS__PREDICT": "30/hour",
    }
    one = new_gateway(MODEL__URL="stub://", **same)
    folder = tmp_path / "other"
    folder.mkdir()
    ports = {"PORT": one.free_port(), "METRICS_PORT": one.free_port()}
    two = replace(one, folder=folder, environment=one.environment | ports, process=None, clients=[])
    two.start()
    try:
        answers = predict_at([one.base_url, two.base_url], one.token(), 60)
        assert Counter(answer.status_code for answer in answers) == {200: 30, 429: 30}
        allowed = [answer for answer in answers if answer.status_code == 200]
        left = {int(answer.headers["RateLimit"].split(";")[1].removeprefix("r=")) for answer in allowed}
        assert left == set(range(30))
        assert limits_word(one) == limits_word(two) == "ok"
    finally:
        assert two.stop() == 0


def test_line_24_a_rate_is_exact_over_the_workers_of_a_machine(new_gateway: Callable[..., Any]) -> None:
    """Without Redis the workers of one gateway let through together exactly what one would."""
    gateway = new_gateway(
        MODEL__URL="stub://", WEB_CONCURRENCY="2", LIMITS__PREDICT="30/hour", LIMITS__TOKEN="2/hour", DRAIN_SECONDS="0"
    )
    token = gateway.token()
    answers = predict_at([gateway.base_url], token, 60)
    assert Counter(answer.status_code for answer in answers) == {200: 30, 429: 30}
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.headers["RateLimit-Policy"] == '"predict";q=30;w=3600'
    assert 3500 < int(refused.headers["Retry-After"]) <= 3600
    form = {"grant_type": "password", "username": "ana", "password": "wrong horse battery"}
    statuses = [httpx.post(f"{gateway.base_url}/auth/token", data=form).status_code for _ in range(4)]
    assert sorted(statuses) == [400, 429, 429, 429]


def test_line_25_limits_without_their_store(new_gateway: Callable[..., Any], redis_server: Any) -> None:
    """While Redis hangs half of the rate holds, nobody else waits, it is told and counted, and heals by itself."""
    gateway = new_gateway(
        MODEL__URL="stub://", REDIS_URL=redis_server.url, LIMITS__PREDICT="40/hour", DRAIN_SECONDS="0"
    )
    token = gateway.token()
    assert limits_word(gateway) == "ok"
    redis_server.send(signal.SIGSTOP)
    with ThreadPoolExecutor(1) as pool, httpx.Client(base_url=gateway.base_url) as client:
        asked, slowest = pool.submit(predict_at, [gateway.base_url], token, 40), 0.0
        while not asked.done():
            slowest = max(slowest, client.get("/livez").elapsed.total_seconds())
    assert slowest < 0.5
    answers = asked.result()
    assert Counter(answer.status_code for answer in answers) == {200: 20, 429: 20}
    assert {answer.headers["RateLimit-Policy"] for answer in answers} == {'"predict";q=20;w=3600'}
    assert limits_word(gateway) == "reduced"
    assert metric(gateway, 'atalaya_limit_store_up{store="redis"}') == 0
    assert metric(gateway, 'atalaya_limit_fallbacks_total{store="redis"}') >= 40
    redis_server.send(signal.SIGCONT)
    wait_for_word(gateway, "ok")
    assert metric(gateway, 'atalaya_limit_store_up{store="redis"}') == 1
    (answer,) = predict_at([gateway.base_url], token, 1)
    assert answer.headers["RateLimit-Policy"] == '"predict";q=40;w=3600'
    events = [line for line in gateway.log().splitlines() if '"limits_' in line]
    assert len(events) == 2
    assert "redis://" not in gateway.log()
