"""Deadlines, disconnecting callers and slow uploads on a running gateway."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import pytest

from tests.support.gateway import DECODED, TIMEOUT_S, Gateway
from tests.support.paths import FOREST
from tests.support.polling import wait_until

IMAGE = FOREST.read_bytes()
JPEG = {"Content-Type": "image/jpeg"}
WAITING = "atalaya_queue_length"  # sampled twice a second
RESERVED = "atalaya_memory_reserved_bytes"


@pytest.fixture
def slow(new_gateway: Callable[..., Gateway]) -> Gateway:
    """A gateway that makes one prediction at a time, each of which takes five seconds."""
    return new_gateway(MODEL__URL="stub://?latency_ms=5000", MODEL__WORKERS="1", MODEL__QUEUE_SECONDS="60")


def open_upload(gateway: Gateway, token: str, path: str, length: int, data: bytes) -> socket.socket:
    """Open a connection, and send the headers of an upload of `length` bytes and `data`, the first of them."""
    connection = socket.create_connection(("127.0.0.1", gateway.port), timeout=TIMEOUT_S)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
    connection.sendall(f"{head}Content-Type: image/jpeg\r\nContent-Length: {length}\r\n\r\n".encode() + data)
    return connection


def test_a_deadline_that_cannot_be_met_is_rejected_at_once(slow: Gateway) -> None:
    """A request whose X-Request-Timeout is shorter than the queue's wait gets a 503 at once; an invalid one a 422."""
    client = slow.client()

    def predict(timeout: str) -> httpx.Response:
        return client.post("/v1/predictions", content=IMAGE, headers={**JPEG, "X-Request-Timeout": timeout})

    assert predict("30").status_code == 200
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(predict, "30")
        wait_until(lambda: slow.metric(DECODED) == 2)
        rejected = predict("0.3")
        assert (rejected.status_code, rejected.json()["code"]) == (503, "overloaded")
        assert int(rejected.headers["Retry-After"]) >= 1
        assert first.result().status_code == 200
    for invalid in ("0", "-1", "soon", "nan", "inf"):
        assert predict(invalid).status_code == 422


@pytest.mark.usefixtures("within_one_month")
def test_a_queued_request_of_a_disconnected_caller_is_dropped(slow: Gateway) -> None:
    """A queued image whose caller disconnects is not classified or charged, and is recorded as a 499."""
    client, token = slow.client(), slow.token()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.post, "/v1/predictions", content=IMAGE, headers=JPEG)
        wait_until(lambda: slow.metric(DECODED) == 1)
        with open_upload(slow, token, "/v1/predictions", len(IMAGE), IMAGE):
            wait_until(lambda: slow.metric(WAITING) == 1)
        wait_until(lambda: slow.metric('atalaya_shed_total{reason="caller_left"}') == 1)
        assert first.result().status_code == 200
    assert client.post("/v1/predictions", content=IMAGE, headers=JPEG).status_code == 200
    assert slow.metric('atalaya_prediction_stage_seconds_count{stage="infer"}') == 2
    assert slow.metric("atalaya_ledger_entries_total") == 3
    listed = client.get("/v1/predictions").json()["entries"]
    assert sorted((entry["status"], entry["code"]) for entry in listed[1:]) == [(200, None), (499, "client_left")]
    assert client.get("/v1/usage").json()["requests"] == 2


def test_slow_uploads_of_one_caller_leave_memory_to_others(new_gateway: Callable[..., Gateway]) -> None:
    """Forty stalled uploads of one caller reserve at most a quarter of the memory, and another caller is served."""
    gateway = new_gateway(MODEL__URL="stub://", MODEL__MEMORY_MEGABYTES="64")
    gateway.add_user("ben")
    client, token, other = gateway.client(), gateway.token(), gateway.client("ben")
    with ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(open_upload(gateway, token, "/v1/predictions", 100_000, IMAGE[:1000]))
        wait_until(lambda: gateway.metric(RESERVED) > 12e6)
        assert other.post("/v1/predictions", content=IMAGE, headers=JPEG).status_code == 200
        assert gateway.metric(RESERVED) <= 64 * 2**20 / 4
    wait_until(lambda: gateway.metric(RESERVED) == 0)
    assert client.post("/v1/predictions", content=IMAGE, headers=JPEG).status_code == 200


@pytest.mark.parametrize("path", ["/v1/predictions", "/v1/predictions?dry_run=true"])
def test_a_slow_upload_does_not_use_up_the_deadline(new_gateway: Callable[..., Gateway], path: str) -> None:
    """A body that takes longer to arrive than the deadline of predictions is served, and its memory is released."""
    gateway = new_gateway(MODEL__URL="stub://", MODEL__DEADLINE_SECONDS="1")
    token, started = gateway.token(), time.monotonic()
    with open_upload(gateway, token, path, len(IMAGE), IMAGE[:1000]) as connection:
        while time.monotonic() < started + 2:
            assert gateway.get("/livez").is_success
        connection.sendall(IMAGE[1000:])
        assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
    wait_until(lambda: gateway.metric(RESERVED) == 0)


def test_dry_runs_reserve_memory_for_their_caller(new_gateway: Callable[..., Gateway]) -> None:
    """The memory of dry runs counts towards their caller's share, so that another caller's dry run is served."""
    gateway = new_gateway(MODEL__URL="stub://", MODEL__MEMORY_MEGABYTES="64")
    gateway.add_user("ben")
    token, other = gateway.token(), gateway.client("ben")
    with ExitStack() as stack:
        for _ in range(60):
            stack.enter_context(open_upload(gateway, token, "/v1/predictions?dry_run=true", 100_000, IMAGE[:1000]))
        wait_until(lambda: gateway.metric(RESERVED) > 12e6)
        assert other.post("/v1/predictions?dry_run=true", content=IMAGE, headers=JPEG).status_code == 200


def test_a_rejected_announced_body_is_recorded(slow: Gateway) -> None:
    """A prediction that is rejected for its Content-Length, before its body is read, is recorded in the ledger."""
    client = slow.client()
    with open_upload(slow, slow.token(), "/v1/predictions", 60_000_000, b"x") as connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")
    wait_until(lambda: client.get("/v1/predictions").json()["entries"])
    (entry,) = client.get("/v1/predictions").json()["entries"]
    assert (entry["status"], entry["code"]) == (413, "body_too_large")
