"""Threat T34: a job that never ends makes the gateway replace its process, and blocks nothing else."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest

from tests.support.gateway import DECODED, Gateway
from tests.support.images.pngs import make_white_png
from tests.support.paths import FOREST
from tests.support.polling import wait_until

pytestmark = pytest.mark.long
IMAGE = FOREST.read_bytes()
JPEG = {"Content-Type": "image/jpeg"}
STUCK = "atalaya_stuck_jobs_total"
RESERVED = "atalaya_memory_reserved_bytes"
STOPPED_WITHIN_S = 10.0
# The caller's deadline is five seconds, in which a busy machine starts the job; the default is thirty.
DEADLINE_KEPT_WITHIN_S = 15.0


HANGING = make_white_png()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def send(gateway: Gateway, image: bytes, token: str, **headers: str) -> httpx.Response:
    media_type = "image/png" if image is HANGING else "image/jpeg"
    sent = {"Authorization": f"Bearer {token}", "Content-Type": media_type, **headers}
    return gateway.post("/v1/predictions", content=image, headers=sent)


@contextmanager
def readiness_checks(gateway: Gateway) -> Iterator[list[httpx.Response]]:
    """Poll `/readyz`, each time on a new connection, and collect the responses."""
    seen: list[httpx.Response] = []
    stop = threading.Event()

    def check() -> None:
        while not stop.wait(0.02):
            seen.append(gateway.get("/readyz"))

    with ThreadPoolExecutor(1) as pool:
        checking = pool.submit(check)
        try:
            yield seen
        finally:
            stop.set()
    checking.result()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_hang_is_reported_and_ends(new_gateway: Callable[..., Gateway], workers: str) -> None:
    """T34: the caller gets a 504, readiness names the model, no connection is refused, and the gateway recovers."""
    gateway = new_gateway(
        MODEL__URL="stub://?hang=white", MODEL__STUCK_SECONDS="1", MODEL__WORKERS="2", WEB_CONCURRENCY=workers
    )
    pid, token = gateway.pid, gateway.token()
    assert send(gateway, IMAGE, token).status_code == 200
    before = gateway.workers()
    with readiness_checks(gateway) as seen:
        response = send(gateway, HANGING, token)
        assert (response.status_code, response.json()["code"]) == (504, "deadline_exceeded")
        wait_until(lambda: any(one.json()["checks"]["model"] == "WorkerStuck" for one in seen))
        wait_until(lambda: [one.status_code for one in seen[-20:]] == [200] * 20, message=gateway.log)
    assert {one.status_code for one in seen} == {200, 503}
    wait_until(lambda: send(gateway, IMAGE, token).status_code == 200)
    assert gateway.pid == pid
    wait_until(lambda: workers == "1" or set(gateway.workers()) != set(before))
    assert gateway.metric(STUCK) == 1
    assert gateway.stop() == 0, gateway.log()
    assert json.loads(gateway.run("ledger", "verify", "--json").stdout)["entries"] >= 2


@pytest.mark.usefixtures("within_one_month")
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_gateway_with_a_stuck_thread_keeps_deadlines_and_stops_in_order(
    new_gateway: Callable[..., Gateway], workers: str
) -> None:
    """T34: the caller gets a 504 at its deadline, the memory of the job stays reserved, and SIGTERM still works."""
    gateway = new_gateway(
        MODEL__URL="stub://?hang=white", MODEL__STUCK_SECONDS="600", MODEL__WORKERS="3", WEB_CONCURRENCY=workers
    )
    token, started = gateway.token(), time.monotonic()
    response = send(gateway, HANGING, token, **{"X-Request-Timeout": "5"})
    assert (response.status_code, response.json()["code"]) == (504, "deadline_exceeded")
    assert time.monotonic() - started < DEADLINE_KEPT_WITHIN_S
    assert send(gateway, IMAGE, token).status_code == 200
    assert gateway.metric(RESERVED) > 1_000_000
    client = gateway.client()
    assert client.get("/v1/usage").json()["requests"] == 1
    wait_until(lambda: len(client.get("/v1/predictions").json()["entries"]) == 2)
    codes = [entry["code"] for entry in client.get("/v1/predictions").json()["entries"]]
    assert sorted(codes, key=str) == [None, "deadline_exceeded"]  # two workers may write them in either order
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(send, gateway, HANGING, token)
        wait_until(lambda: gateway.metric(DECODED) == 3)
        stopping = time.monotonic()
        assert gateway.stop() == 0, gateway.log()
        assert time.monotonic() - stopping < STOPPED_WITHIN_S
        assert waiting.result().status_code == 504
    assert "worker_killed" not in gateway.log()
    assert json.loads(gateway.run("ledger", "verify", "--json").stdout)["entries"] >= 3


def test_a_signal_to_stop_prevents_the_replacement(new_gateway: Callable[..., Gateway]) -> None:
    """T34: SIGTERM while a process is about to replace itself stops the gateway, and frees its port."""
    gateway = new_gateway(MODEL__URL="stub://?hang=white", MODEL__STUCK_SECONDS="1", MODEL__WORKERS="1")
    assert send(gateway, HANGING, gateway.token()).status_code == 504
    wait_until(lambda: '"process_replacing"' in gateway.log())
    assert gateway.stop() == 0, gateway.log()
    with pytest.raises(httpx.ConnectError):
        gateway.get("/livez")
