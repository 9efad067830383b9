"""Deadlines and callers who leave, on a running gateway with one slow worker."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

FOREST = Path(__file__).parents[2] / "samples" / "yellowstone_forest.jpg"
JPEG = {"Content-Type": "image/jpeg"}


@pytest.fixture
def slow(new_gateway: Callable[..., Any]) -> Any:
    """Answers one prediction in 0.4 s, one after the other."""
    return new_gateway(MODEL__URL="stub://?latency_ms=400", MODEL__WORKERS="1")


def metric(gateway: Any, line: str) -> float:
    lines = httpx.get(gateway.metrics_url).text.splitlines()
    return next((float(found.rpartition(" ")[2]) for found in lines if found.startswith(f"{line} ")), 0.0)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_deadline_is_kept(slow: Any) -> None:
    """Who cannot be answered in the time of X-Request-Timeout hears so at once; a time that is none is refused."""
    client, image = slow.client(), FOREST.read_bytes()

    def predict(timeout: str) -> httpx.Response:
        return client.post("/v1/predictions", content=image, headers={**JPEG, "X-Request-Timeout": timeout})

    assert predict("5").status_code == 200
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(predict, "10")
        until(lambda: metric(slow, 'http_server_active_requests{http_request_method="POST"}') == 1)
        refused = predict("0.3")
        assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
        assert int(refused.headers["Retry-After"]) >= 1
        assert first.result().status_code == 200
    for nonsense in ("0", "-1", "soon", "nan", "inf"):
        assert predict(nonsense).status_code == 422


def test_work_for_a_caller_who_left_is_dropped(slow: Any) -> None:
    """An image whose sender has gone while it was queued is never decoded or charged; it is on record as that."""
    client, image = slow.client(), FOREST.read_bytes()
    head = (
        f"POST /v1/predictions HTTP/1.1\r\nHost: localhost\r\nAuthorization: {client.headers['Authorization']}\r\n"
        f"Content-Type: image/jpeg\r\nContent-Length: {len(image)}\r\n\r\n"
    )
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.post, "/v1/predictions", content=image, headers=JPEG)
        active = 'http_server_active_requests{http_request_method="POST"}'
        until(lambda: metric(slow, active) == 1)
        with socket.create_connection(("127.0.0.1", int(slow.environment["PORT"]))) as leaving:
            leaving.sendall(head.encode() + image)
            until(lambda: metric(slow, active) == 2)
        until(lambda: metric(slow, 'atalaya_shed_total{reason="caller_left"}') == 1)
        assert first.result().status_code == 200
    assert client.post("/v1/predictions", content=image, headers=JPEG).status_code == 200
    assert metric(slow, 'atalaya_prediction_stage_seconds_count{stage="infer"}') == 2
    assert metric(slow, "atalaya_ledger_entries_total") == 3
    listed = client.get("/v1/predictions").json()["entries"]
    assert sorted((entry["status"], entry["code"]) for entry in listed[1:]) == [(200, None), (499, "client_left")]
    assert client.get("/v1/usage").json()["requests"] == 2


def test_slow_uploads_of_one_caller_leave_memory_to_others(new_gateway: Callable[..., Any]) -> None:
    """Forty uploads that do not go on hold a quarter of the memory, which the metric shows; another is answered."""
    gateway = new_gateway(MODEL__URL="stub://", MODEL__MEMORY_MEGABYTES="64")
    added = gateway.run("users", "add", "ben", "--role", "client", "--password-stdin", stdin="correct horse battery")
    assert added.returncode == 0, added.stderr
    client, other, image = gateway.client(), gateway.client("ben"), FOREST.read_bytes()
    reserved = "atalaya_memory_reserved_bytes"
    with ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(unfinished(gateway, client, "/v1/predictions", 100_000, image[:1000]))
        until(lambda: metric(gateway, reserved) > 12e6)
        assert other.post("/v1/predictions", content=image, headers=JPEG).status_code == 200
        assert metric(gateway, reserved) <= 64 * 2**20 / 4
    until(lambda: metric(gateway, reserved) == 0)
    assert client.post("/v1/predictions", content=image, headers=JPEG).status_code == 200


def unfinished(gateway: Any, client: httpx.Client, path: str, length: int, sent: bytes) -> socket.socket:
    """An upload that does not go on."""
    connection = socket.create_connection(("127.0.0.1", int(gateway.environment["PORT"])), timeout=20)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {client.headers['Authorization']}\r\n"
    connection.sendall(f"{head}Content-Type: image/jpeg\r\nContent-Length: {length}\r\n\r\n".encode() + sent)
    return connection


@pytest.mark.parametrize("path", ["/v1/predictions", "/v1/predictions?dry_run=true"])
def test_a_deadline_ends_the_reading_of_a_body(new_gateway: Callable[..., Any], path: str) -> None:
    """Who sends too slowly to be answered in time hears so then, and gives its memory back."""
    gateway = new_gateway(MODEL__URL="stub://", MODEL__DEADLINE_SECONDS="1")
    client, started = gateway.client(), time.monotonic()
    with unfinished(gateway, client, path, 5_000_000, FOREST.read_bytes()[:1000]) as connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 504 ")
    assert 0.9 < time.monotonic() - started < 8
    until(lambda: metric(gateway, "atalaya_memory_reserved_bytes") == 0)


def test_trials_are_somebody_s(new_gateway: Callable[..., Any]) -> None:
    """What dry runs reserve counts as their caller's: another's finds room."""
    gateway = new_gateway(MODEL__URL="stub://", MODEL__MEMORY_MEGABYTES="64")
    added = gateway.run("users", "add", "ben", "--role", "client", "--password-stdin", stdin="correct horse battery")
    assert added.returncode == 0, added.stderr
    client, other, image = gateway.client(), gateway.client("ben"), FOREST.read_bytes()
    with ExitStack() as stack:
        for _ in range(60):
            stack.enter_context(unfinished(gateway, client, "/v1/predictions?dry_run=true", 100_000, image[:1000]))
        until(lambda: metric(gateway, "atalaya_memory_reserved_bytes") > 12e6)
        assert other.post("/v1/predictions?dry_run=true", content=image, headers=JPEG).status_code == 200


def test_a_body_that_is_too_long_is_on_record(slow: Any) -> None:
    """Refused for what it announces, before it is read."""
    client = slow.client()
    with unfinished(slow, client, "/v1/predictions", 60_000_000, b"x") as connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")
    until(lambda: bool(client.get("/v1/predictions").json()["entries"]))
    (entry,) = client.get("/v1/predictions").json()["entries"]
    assert (entry["status"], entry["code"]) == (413, "body_too_large")
