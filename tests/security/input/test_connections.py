"""Threats T16 and T26: the cost of connections, and the boundaries between requests on one connection."""

from __future__ import annotations

import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import httpx
import pytest

from tests.support.gateway import PASSWORD, TIMEOUT_S, Gateway
from tests.support.paths import FOREST
from tests.support.polling import wait_until
from tests.support.wire import Wire, receive_response, receive_until_closed

DESCRIPTORS = 128
UPGRADE = ("Connection: Upgrade", "Upgrade: h2c")
ANOTHER_REQUEST = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"


def exchange_in_two_parts(wire: Wire, head: bytes, later: bytes) -> bytes:
    """Send a head, wait for the response to it, send the rest, and return everything that the gateway sends."""
    with closing(wire.connect()) as connection:
        connection.sendall(head)
        received = receive_response(connection)
        with suppress(OSError):
            connection.sendall(later)
        return received + receive_until_closed(connection)


@pytest.mark.parametrize(
    ("length", "body"),
    [
        (f"Content-Length: {len(ANOTHER_REQUEST)}", ANOTHER_REQUEST),
        ("Transfer-Encoding: chunked", b"%x\r\n%b\r\n0\r\n\r\n" % (len(ANOTHER_REQUEST), ANOTHER_REQUEST)),
    ],
    ids=["length", "chunked"],
)
def test_a_body_is_not_read_as_a_request(wire: Wire, length: str, body: bytes) -> None:
    """T26: after an upgrade request the gateway does not parse the body as the next request."""
    head = wire.head("POST", "/v1/predictions", *UPGRADE, "Content-Type: image/jpeg", length)
    received = exchange_in_two_parts(wire, head, body)
    assert received.startswith(b"HTTP/1.1 400 ")
    assert received.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("more", [(), ("Content-Length: 0",)])
def test_a_protocol_upgrade_is_declined(wire: Wire, more: tuple[str, ...]) -> None:
    """T26: an upgrade request without a body, as Java's client sends it, gets a response and a closed connection."""
    received = exchange_in_two_parts(wire, wire.head("GET", "/v1/me", *UPGRADE, *more), ANOTHER_REQUEST)
    assert received.startswith(b"HTTP/1.1 200 ")
    assert received.count(b"HTTP/1.1") == 1
    assert b"connection: close" in received.lower()


def test_an_anonymous_document_is_not_read(wire: Wire) -> None:
    """T16: a request without credentials is rejected before its document arrives."""
    head = (
        b"POST /v1/keys HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 65000\r\n\r\n"
    )
    status, problem = wire.exchange(head)
    assert (status, problem["code"]) == (401, "missing_credentials")


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    """Limits this process and its children to few file descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("few_descriptors")
def test_connections_are_limited_by_address(new_gateway: Callable[..., Gateway]) -> None:
    """T16: one address may use half of the connections, others still connect, and a closed one can be replaced."""
    gateway = new_gateway(MODEL__URL="stub://")
    most = (DESCRIPTORS - 64) // 2  # the gateway keeps 64 descriptors for its own files
    with ExitStack() as stack:
        address = ("127.0.0.1", gateway.port)
        held = [stack.enter_context(socket.create_connection(address, TIMEOUT_S)) for _ in range(most)]
        rejected = stack.enter_context(socket.create_connection(address, TIMEOUT_S))
        assert receive_until_closed(rejected) == b""
        transport = httpx.HTTPTransport(local_address="127.0.0.2")
        with httpx.Client(base_url=gateway.base_url, transport=transport, timeout=TIMEOUT_S) as other:
            form = {"grant_type": "password", "username": "ana", "password": PASSWORD}
            token = other.post("/auth/token", data=form).json()["access_token"]
            other.headers["Authorization"] = f"Bearer {token}"
            response = other.post("/v1/predictions", files={"file": FOREST.read_bytes()})
            assert response.status_code == 200, response.text
        held[0].close()
        wait_until(lambda: _is_live(gateway), message="the closed connection was not replaced")


def _is_live(gateway: Gateway) -> bool:
    try:
        return gateway.get("/livez").status_code == 200
    except httpx.TransportError:
        return False


def test_a_client_that_does_not_read_is_disconnected(gateway: Gateway) -> None:
    """T16: the gateway discards responses that a client does not read, and closes its connection."""
    request = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        connection.connect(("127.0.0.1", gateway.port))
        client_port: int = connection.getsockname()[1]

        def is_closed_after_another_request() -> bool:
            with suppress(OSError):  # once the buffers of the kernel are full, too
                connection.send(request, socket.MSG_DONTWAIT)
            return not _is_established(gateway.port, client_port)

        assert _is_established(gateway.port, client_port)
        wait_until(is_closed_after_another_request)
        connection.settimeout(TIMEOUT_S)
        receive_until_closed(connection)  # returns, because no more responses follow


def _is_established(server_port: int, client_port: int) -> bool:
    """Whether the server's end of a connection on loopback is open (state 01 in /proc/net/tcp)."""
    lines = [line.split()[1:4] for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [f"0100007F:{server_port:04X}", f"0100007F:{client_port:04X}", "01"] in lines
