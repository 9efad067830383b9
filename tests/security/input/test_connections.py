"""Threats T16 and T26: the cost of connections, and the boundaries between requests on one connection."""

from __future__ import annotations

import hashlib
import re
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import httpx
import pytest

from api.settings import Settings
from tests.support.certificates import make_authority
from tests.support.gateway import PASSWORD, TIMEOUT_S, Gateway
from tests.support.paths import FOREST
from tests.support.polling import wait_until
from tests.support.wire import Wire, receive_response, receive_until_closed

DESCRIPTORS = 128
UPGRADE = ("Connection: Upgrade", "Upgrade: h2c")
ANOTHER_REQUEST = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"


def frame(length: str, body: bytes) -> tuple[str, bytes]:
    """Return a framing header, and the body in that framing."""
    if length == "chunked":
        return "Transfer-Encoding: chunked", b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    return f"Content-Length: {len(body)}", body


@pytest.mark.parametrize("length", ["length", "chunked"])
def test_an_upgrade_is_ignored_and_the_body_is_read(wire: Wire, length: str) -> None:
    """T26: a request that offers h2c, as Java's client does, is served, and its connection stays open."""
    header, body = frame(length, FOREST.read_bytes())
    head = wire.head("POST", "/v1/predictions", *UPGRADE, "Content-Type: image/jpeg", header)
    with closing(wire.connect()) as connection:
        for _ in range(2):
            status, prediction = wire.exchange_on(connection, [head, body])
            assert (status, prediction["image"]["sha256"]) == (200, hashlib.sha256(FOREST.read_bytes()).hexdigest())
        connection.sendall(ANOTHER_REQUEST)
        assert receive_response(connection).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("length", ["length", "chunked"])
def test_a_body_is_not_read_as_a_request(wire: Wire, length: str) -> None:
    """T26: after an upgrade request the gateway does not parse the body as the next request."""
    header, body = frame(length, ANOTHER_REQUEST)
    head = wire.head("POST", "/v1/predictions", *UPGRADE, "Content-Type: image/jpeg", header)
    with closing(wire.connect()) as connection:
        status, problem = wire.exchange_on(connection, [head, body])
        assert (status, problem["code"]) == (415, "unsupported_image")
        assert wire.exchange_on(connection, [head, body])[0] == 415


@pytest.mark.parametrize("more", [(), ("Content-Length: 0",)])
@pytest.mark.parametrize("protocol", ["h2c", "websocket", "TLS/1.0"])
def test_a_protocol_upgrade_is_declined(wire: Wire, protocol: str, more: tuple[str, ...]) -> None:
    """T26: an upgrade request without a body gets an ordinary response, and what follows is the next request."""
    upgrade = ("Connection: Upgrade, HTTP2-Settings", f"Upgrade: {protocol}", "HTTP2-Settings: AAEAAEAAAAIAAAAB")
    with closing(wire.connect()) as connection:
        connection.sendall(wire.head("GET", "/v1/me", *upgrade, *more) + ANOTHER_REQUEST)
        received = b""
        while received.count(b"HTTP/1.1 200 ") < 2:
            chunk = connection.recv(65536)
            assert chunk, received
            received += chunk


def test_a_tunnel_is_rejected(wire: Wire) -> None:
    """T26: CONNECT gets a 400, and the bytes after it are not parsed."""
    with closing(wire.connect()) as connection:
        connection.sendall(b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org\r\n\r\n" + ANOTHER_REQUEST)
        received = receive_until_closed(connection)
    assert received.startswith(b"HTTP/1.1 400 ")
    assert received.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("content_type", ["image/jpeg", "multipart/form-data; boundary=b"])
def test_a_malformed_chunk_gets_a_problem_document(wire: Wire, content_type: str) -> None:
    """T16: a body with an invalid chunk gets a 400 with a problem document, and the connection is closed."""
    with closing(wire.connect()) as connection:
        status, problem = wire.exchange_on(connection, [wire.upload_head(content_type), b"5\r\nabcde\r\nxyz\r\n"])
        assert (status, problem["code"]) == (400, "bad_request")
        assert receive_until_closed(connection) == b""


def test_a_malformed_body_behind_its_response_gets_no_second_one(wire: Wire) -> None:
    """T26: a request that gets its response before its body ends gets no second one for a malformed body."""
    head = wire.head("POST", "/v1/nowhere", "Transfer-Encoding: chunked")
    with closing(wire.connect()) as connection:
        status, _ = wire.exchange_on(connection, [head])
        assert status == 404
        with suppress(OSError):
            connection.sendall(b"xyz\r\n")
        assert receive_until_closed(connection) == b""


@pytest.mark.parametrize("last", [b"GARBAGE\r\n\r\n", b"GET / HTTP/1.1\r\nX: " + b"y" * 200_000])
def test_requests_before_a_malformed_one_get_their_responses(wire: Wire, last: bytes) -> None:
    """T16: valid pipelined requests get their responses, and the invalid one after them gets a problem document."""
    with closing(wire.connect()) as connection:
        connection.sendall(ANOTHER_REQUEST * 3 + last)
        received = receive_until_closed(connection)
    statuses = re.findall(rb"HTTP/1.1 (\d+) ", received)
    assert statuses[:-1] == [b"200"] * 3
    assert statuses[-1] in (b"400", b"431")


def test_trailers_are_no_headers(wire: Wire) -> None:
    """T26: the gateway ignores credentials in trailers, because a proxy in front of it checks only headers."""
    chunked = b"GET /v1/me HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    trailers = b"0\r\nAuthorization: Bearer %b\r\n\r\n" % wire.token.encode()
    status, problem = wire.exchange(chunked + trailers)
    assert (status, problem["code"]) == (401, "missing_credentials")
    status, me = wire.exchange(
        wire.head("GET", "/v1/me", "Transfer-Encoding: chunked") + b"0\r\nHost: evil.example\r\n\r\n"
    )
    assert (status, me["name"]) == (200, "ana")


def test_too_many_trailers_are_rejected(wire: Wire) -> None:
    """T16: headers and trailers together are limited."""
    trailers = b"".join(b"X-%d: 1\r\n" % number for number in range(100))
    status, problem = wire.exchange(
        wire.head("GET", "/v1/me", "Transfer-Encoding: chunked") + b"0\r\n" + trailers + b"\r\n"
    )
    assert (status, problem["code"]) == (431, "head_too_large")


def test_a_client_of_http_1_0_gets_no_interim_response(wire: Wire) -> None:
    """The gateway ignores `Expect: 100-continue` in a request of HTTP/1.0."""
    with closing(wire.connect()) as connection:
        connection.sendall(
            b"POST /auth/token HTTP/1.0\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx"
        )
        assert b" 100 " not in receive_until_closed(connection).partition(b"\r\n")[0]


@pytest.mark.parametrize("target", ["http://localhost", "http://localhost?x=1", "http://localhost/"])
def test_an_absolute_target_without_a_path_is_the_root(wire: Wire, target: str) -> None:
    """A URI without a path names the page `/`."""
    with closing(wire.connect()) as connection:
        connection.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert receive_response(connection).startswith(b"HTTP/1.1 200 ")


def test_an_over_long_pipeline_gets_a_problem_document(wire: Wire) -> None:
    """T16: pipelined requests get their responses up to a limit, and the first beyond it gets a problem document."""
    with closing(wire.connect()) as connection:
        connection.sendall(ANOTHER_REQUEST * 100)
        received = receive_until_closed(connection)
    statuses = re.findall(rb"HTTP/1.1 (\d+) ", received)
    assert statuses[-1] == b"400"
    assert set(statuses[:-1]) == {b"200"}
    assert b"pipelined" in received


def test_an_idle_connection_stays_open_for_its_time(new_gateway: Callable[..., Gateway]) -> None:
    """T16: a connection is closed once it has been idle for KEEP_ALIVE_SECONDS, by default 75."""
    gateway = new_gateway(MODEL__URL="stub://", KEEP_ALIVE_SECONDS="1")
    with socket.create_connection(("127.0.0.1", gateway.port), TIMEOUT_S) as connection:
        connection.sendall(ANOTHER_REQUEST)
        assert receive_response(connection).startswith(b"HTTP/1.1 200 ")
        assert receive_until_closed(connection) == b""
    assert Settings().keep_alive_seconds == 75


def test_an_anonymous_document_is_not_read(wire: Wire) -> None:
    """T16: a request without credentials is rejected before its document arrives."""
    head = (
        b"POST /v1/keys HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 65000\r\n\r\n"
    )
    status, problem = wire.exchange(head)
    assert (status, problem["code"]) == (401, "missing_credentials")


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    """Limit this process and its children to few file descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("few_descriptors")
def test_connections_are_limited_by_address(new_gateway: Callable[..., Gateway]) -> None:
    """T16: one address may hold half of the connections, others can still connect, and a closed one can be replaced.

    Connections that are refused are counted.
    """
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
        assert gateway.metric('atalaya_connections_refused_total{code="too_many_connections"}') == 1
        held[0].close()
        wait_until(lambda: _is_live(gateway), message="the closed connection was not replaced")


@pytest.mark.usefixtures("few_descriptors")
def test_connections_without_a_handshake_are_limited(new_gateway: Callable[..., Gateway], tmp_path: Path) -> None:
    """T16: connections count from the start, not from the end of their TLS handshake, which has 10 seconds."""
    authority = make_authority(tmp_path / "pki")
    certificate, key = authority.issue("CN=gateway")
    gateway = new_gateway(MODEL__URL="stub://", TLS_CERTIFICATE=certificate, TLS_KEY=key)
    most = (DESCRIPTORS - 64) // 2
    with ExitStack() as stack:
        address = ("127.0.0.1", gateway.port)
        held = [stack.enter_context(socket.create_connection(address, TIMEOUT_S)) for _ in range(most)]
        rejected = stack.enter_context(socket.create_connection(address, TIMEOUT_S))
        assert receive_until_closed(rejected) == b""
        transport = httpx.HTTPTransport(local_address="127.0.0.2", verify=authority.ssl_context())
        with httpx.Client(base_url=gateway.base_url, transport=transport, timeout=TIMEOUT_S) as other:
            assert other.get("/livez").status_code == 200
        for connection in held:
            assert receive_until_closed(connection) == b""
    assert httpx.get(f"{gateway.base_url}/livez", verify=authority.ssl_context(), timeout=TIMEOUT_S).is_success


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
            with suppress(OSError):  # also raised when the kernel's buffers are full
                connection.send(request, socket.MSG_DONTWAIT)
            return not _is_established(gateway.port, client_port)

        wait_until(lambda: _is_established(gateway.port, client_port))  # the kernel may complete this end later
        wait_until(is_closed_after_another_request)
        connection.settimeout(TIMEOUT_S)
        receive_until_closed(connection)  # returns, because no more responses follow


def _is_established(server_port: int, client_port: int) -> bool:
    """Whether the server's end of a connection on loopback is open (state 01 in /proc/net/tcp)."""
    lines = [line.split()[1:4] for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [f"0100007F:{server_port:04X}", f"0100007F:{client_port:04X}", "01"] in lines
