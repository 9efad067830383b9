"""Lines 16 and 26: what a connection costs, and that one message is one message."""

from __future__ import annotations

import resource
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

DESCRIPTORS = 128
FOREST = Path(__file__).parents[2] / "samples" / "yellowstone_forest.jpg"
OFFER = ("Connection: Upgrade", "Upgrade: h2c")
ANOTHER_REQUEST = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"


def all_of(connection: socket.socket) -> bytes:
    """Until the gateway has closed."""
    received = b""
    with suppress(ConnectionResetError):
        while chunk := connection.recv(65536):
            received += chunk
    return received


def said_to(wire: Any, head: bytes, later: bytes) -> bytes:
    """All that comes of a head and, in another segment, of what follows it."""
    with closing(wire.connect()) as connection:
        connection.sendall(head)
        time.sleep(0.3)
        with suppress(OSError):
            connection.sendall(later)
        return all_of(connection)


@pytest.mark.parametrize(
    ("length", "body"),
    [
        (f"Content-Length: {len(ANOTHER_REQUEST)}", ANOTHER_REQUEST),
        ("Transfer-Encoding: chunked", b"%x\r\n%b\r\n0\r\n\r\n" % (len(ANOTHER_REQUEST), ANOTHER_REQUEST)),
    ],
    ids=["length", "chunked"],
)
def test_line_26_a_body_is_no_request(wire: Any, length: str, body: bytes) -> None:
    """Asked for another protocol, the gateway does not take the body for what comes next."""
    head = wire.head("POST", "/v1/predictions", *OFFER, "Content-Type: image/jpeg", length)
    received = said_to(wire, head, body)
    assert received.startswith(b"HTTP/1.1 400 ")
    assert received.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("more", [(), ("Content-Length: 0",)])
def test_line_26_an_offer_of_another_protocol_is_declined(wire: Any, more: tuple[str, ...]) -> None:
    """A request without a body, as Java's client sends it, is answered as ever, and the connection ends."""
    received = said_to(wire, wire.head("GET", "/v1/me", *OFFER, *more), ANOTHER_REQUEST)
    assert received.startswith(b"HTTP/1.1 200 ")
    assert received.count(b"HTTP/1.1") == 1
    assert b"connection: close" in received.lower()


def test_line_16_nobody_unknown_has_a_document_read(wire: Any) -> None:
    """Who says nothing of itself hears so before its document has come."""
    head = (
        b"POST /v1/keys HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 65000\r\n\r\n"
    )
    status, problem = wire.ask(head)
    assert (status, problem["code"]) == (401, "missing_credentials")


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("few_descriptors")
def test_line_16_connections_are_counted(new_gateway: Callable[..., Any]) -> None:
    """One address has half of the places, the gateway's own files are not among them, and who leaves makes room."""
    gateway = new_gateway(MODEL__URL="stub://")
    port, places = int(gateway.environment["PORT"]), (DESCRIPTORS - 64) // 2
    with ExitStack() as stack:
        held = [stack.enter_context(socket.create_connection(("127.0.0.1", port), 20)) for _ in range(places)]
        refused = stack.enter_context(socket.create_connection(("127.0.0.1", port), 20))
        assert all_of(refused) == b""
        transport = httpx.HTTPTransport(local_address="127.0.0.2")
        with httpx.Client(base_url=gateway.base_url, transport=transport) as other:
            token = other.post(
                "/auth/token", data={"grant_type": "password", "username": "ana", "password": "correct horse battery"}
            ).json()["access_token"]
            other.headers["Authorization"] = f"Bearer {token}"
            answer = other.post("/v1/predictions", files={"file": FOREST.read_bytes()})
            assert answer.status_code == 200, answer.text
        held[0].close()
        _until_answered(gateway)


def _until_answered(gateway: Any) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with suppress(httpx.TransportError):
            assert httpx.get(f"{gateway.base_url}/livez").status_code == 200
            return
    pytest.fail("no place was given back")


def test_line_16_who_does_not_read_is_left(gateway: Any) -> None:
    """Answers that nobody takes are thrown away after some seconds, and so is the connection."""
    request = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        deaf.connect(("127.0.0.1", int(gateway.environment["PORT"])))
        until = time.monotonic() + 4
        while time.monotonic() < until:  # until the kernel's buffers are full, too
            with suppress(BlockingIOError):
                deaf.send(request, socket.MSG_DONTWAIT)
            time.sleep(0.01)
        time.sleep(11)
        deaf.settimeout(5)
        all_of(deaf)  # ends: a connection that was only full would go on when it is read
