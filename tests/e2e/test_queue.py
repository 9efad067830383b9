"""Deadlines, disconnecting callers and slow uploads on a running gateway."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.model.backends.oip.scripted_engine import SPEC, ScriptedEngine
from tests.model.backends.tiny_onnx import write_tiny_artefact
from tests.support.gateway import DECODED, TIMEOUT_S, Gateway
from tests.support.paths import FOREST
from tests.support.polling import wait_until
from tests.support.servers.running import running

IMAGE = FOREST.read_bytes()
JPEG = {"Content-Type": "image/jpeg"}
WAITING = "atalaya_queue_length"  # sampled twice a second
RESERVED = "atalaya_memory_reserved_bytes"


@pytest.fixture
def engine() -> Iterator[ScriptedEngine]:
    with running(ScriptedEngine()) as engine:
        yield engine


@pytest.fixture
def one_at_a_time(engine: ScriptedEngine, new_gateway: Callable[..., Gateway], tmp_path: Path) -> Gateway:
    """A gateway that makes one prediction at a time, which lasts until the engine responds."""
    (tmp_path / "tiny").mkdir()
    return new_gateway(
        MODEL__URL=f"oip+http://{engine.endpoint}/tiny",
        MODEL__MANIFEST=str(write_tiny_artefact(tmp_path / "tiny", SPEC)),
        MODEL__WORKERS="1",
        MODEL__QUEUE_SECONDS="60",
        MODEL__DEADLINE_SECONDS="300",
        MODEL__STUCK_SECONDS="600",
    )


def open_upload(gateway: Gateway, token: str, path: str, length: int, data: bytes) -> socket.socket:
    """Open a connection, and send the headers of an upload of `length` bytes and `data`, the first of them."""
    connection = socket.create_connection(("127.0.0.1", gateway.port), timeout=TIMEOUT_S)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
    connection.sendall(f"{head}Content-Type: image/jpeg\r\nContent-Length: {length}\r\n\r\n".encode() + data)
    return connection


def open_stalled_uploads(stack: ExitStack, gateway: Gateway, token: str, path: str) -> None:
    """Open uploads that never end until they reserve most of one caller's share. Each is rejected after ten seconds."""

    def is_most_reserved() -> bool:
        for _ in range(60):
            stack.enter_context(open_upload(gateway, token, path, 100_000, IMAGE[:1000]))
        return gateway.metric(RESERVED) > 12e6

    wait_until(is_most_reserved)


def test_a_deadline_that_cannot_be_met_is_rejected_at_once(one_at_a_time: Gateway, engine: ScriptedEngine) -> None:
    """A request whose X-Request-Timeout is shorter than the queue's wait gets a 503 at once; an invalid one a 422."""
    gateway, client = one_at_a_time, one_at_a_time.client()

    def predict(timeout: str) -> httpx.Response:
        return client.post("/v1/predictions", content=IMAGE, headers={**JPEG, "X-Request-Timeout": timeout})

    with ThreadPoolExecutor(1) as pool:
        for number in (1, 2):
            with engine.script.silent:
                running_one = pool.submit(predict, "300")
                wait_until(lambda number=number: gateway.metric(DECODED) == number)  # type: ignore[misc]
                if number == 1:
                    time.sleep(2)  # the estimated duration of a prediction
                else:
                    rejected = predict("2")
            assert running_one.result().status_code == 200
    assert (rejected.status_code, rejected.json()["code"]) == (503, "overloaded")
    assert int(rejected.headers["Retry-After"]) >= 1
    for invalid in ("0", "-1", "soon", "nan", "inf"):
        assert predict(invalid).status_code == 422


@pytest.mark.usefixtures("within_one_month")
def test_a_queued_request_of_a_disconnected_caller_is_dropped(one_at_a_time: Gateway, engine: ScriptedEngine) -> None:
    """A queued image whose caller disconnects is not classified or charged, and is recorded as a 499."""
    gateway, client, token = one_at_a_time, one_at_a_time.client(), one_at_a_time.token()
    with ThreadPoolExecutor(1) as pool, engine.script.silent:
        first = pool.submit(client.post, "/v1/predictions", content=IMAGE, headers=JPEG)
        wait_until(lambda: gateway.metric(DECODED) == 1)
        with open_upload(gateway, token, "/v1/predictions", len(IMAGE), IMAGE):
            wait_until(lambda: gateway.metric(WAITING) == 1)
        wait_until(lambda: gateway.metric('atalaya_shed_total{reason="caller_left"}') == 1)
    assert first.result().status_code == 200
    assert client.post("/v1/predictions", content=IMAGE, headers=JPEG).status_code == 200
    assert gateway.metric('atalaya_prediction_stage_seconds_count{stage="infer"}') == 2
    wait_until(lambda: gateway.metric("atalaya_ledger_entries_total") == 3)  # refused requests are recorded later
    listed = client.get("/v1/predictions").json()["entries"]
    statuses = sorted((entry["status"], entry["code"] or "") for entry in listed)
    assert statuses == [(200, ""), (200, ""), (499, "client_left")]
    assert client.get("/v1/usage").json()["requests"] == 2


def test_slow_uploads_of_one_caller_leave_memory_to_others(new_gateway: Callable[..., Gateway]) -> None:
    """Stalled uploads of one caller reserve at most a quarter of the memory, and another caller is served."""
    gateway = new_gateway(MODEL__URL="stub://", MODEL__MEMORY_MEGABYTES="64")
    gateway.add_user("ben")
    client, token, other = gateway.client(), gateway.token(), gateway.client("ben")
    with ExitStack() as stack:
        open_stalled_uploads(stack, gateway, token, "/v1/predictions")
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
        sent_at = time.monotonic()
        connection.sendall(IMAGE[1000:])
        status = connection.recv(100)[:13]
    # A busy machine may need longer than the deadline, but then the response must not come before the deadline.
    assert status == b"HTTP/1.1 200 " or (status == b"HTTP/1.1 504 " and time.monotonic() >= sent_at + 1)
    wait_until(lambda: gateway.metric(RESERVED) == 0)


def test_dry_runs_reserve_memory_for_their_caller(new_gateway: Callable[..., Gateway]) -> None:
    """The memory of dry runs counts towards their caller's share, so that another caller's dry run is served."""
    gateway = new_gateway(MODEL__URL="stub://", MODEL__MEMORY_MEGABYTES="64")
    gateway.add_user("ben")
    token, other = gateway.token(), gateway.client("ben")
    with ExitStack() as stack:
        open_stalled_uploads(stack, gateway, token, "/v1/predictions?dry_run=true")
        assert other.post("/v1/predictions?dry_run=true", content=IMAGE, headers=JPEG).status_code == 200


def test_a_rejected_announced_body_is_recorded(new_gateway: Callable[..., Gateway]) -> None:
    """A prediction that is rejected for its Content-Length, before its body is read, is recorded in the ledger."""
    gateway = new_gateway(MODEL__URL="stub://")
    client = gateway.client()
    with open_upload(gateway, gateway.token(), "/v1/predictions", 60_000_000, b"x") as connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")
    wait_until(lambda: client.get("/v1/predictions").json()["entries"])
    (entry,) = client.get("/v1/predictions").json()["entries"]
    assert (entry["status"], entry["code"]) == (413, "body_too_large")
