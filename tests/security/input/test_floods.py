"""Threat T16: floods and slow requests use bounded memory and time, and the gateway serves others meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import closing, suppress
from typing import Any

import httpx
import pytest

from tests.support.gateway import TIMEOUT_S, Gateway
from tests.support.wire import Wire, receive_until_closed

BOUNDARY = "atalaya-test"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
URLENCODED = "application/x-www-form-urlencoded"
PART = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="%s"\r\n\r\n'
MANY = 20_000
# A rejection takes a second; work that grows with the square of the input takes many minutes.
REJECTED_WITHIN_S = 30.0
# The gateway gives up after ten seconds; without that a slow request would never end.
CUT_OFF_WITHIN_S = 45.0
# /livez takes milliseconds. If slow requests blocked the gateway, it would take up to the ten seconds of a cut-off.
LIVE_WITHIN_S = 5.0

pytestmark = pytest.mark.usefixtures("bounded")


def post(wire: Wire, path: str, content_type: str, body: bytes) -> tuple[int, dict[str, Any]]:
    """Send a request with Content-Length."""
    head = wire.head("POST", path, f"Content-Type: {content_type}", f"Content-Length: {len(body)}")
    return wire.exchange(head, body)


@pytest.mark.parametrize(
    "header",
    [
        pytest.param("\r\n".join(f"X-{index}: y" for index in range(1_000)), id="a thousand headers"),
        pytest.param("X-Long: " + "y" * 5_000_000, id="a header of 5 MB"),
        pytest.param("Cookie: " + "y" * 33_000, id="a header just over the limit"),
        pytest.param("X" * 200_000 + ": y", id="a name of 200 KB"),
    ],
)
def test_too_many_or_too_long_headers_are_rejected(wire: Wire, header: str) -> None:
    """T16: too many headers, or too long ones, get a 431 with a problem document."""
    status, problem = wire.exchange(wire.head("GET", "/livez", header))
    assert (status, problem["code"]) == (431, "head_too_large")


def test_an_endless_head_is_rejected(wire: Wire) -> None:
    """T16: a request line of 5 MB and headers that do not end are rejected while they arrive."""
    for data in ([b"GET /livez?" + b"y" * 5_000_000], [b"GET /livez HTTP/1.1\r\n", *[b"X: y\r\n"] * 200_000]):
        status, problem = wire.exchange(*data)
        assert (status, problem["code"]) == (431, "head_too_large")


def test_trailers_and_chunk_extensions_are_limited(wire: Wire) -> None:
    """T16: too long trailers or chunk extensions get a 431, like a head, and the gateway closes the connection."""
    for data in (b"1\r\nx\r\n0\r\n" + b"X: y\r\n" * 500_000, b"1;" + b"y" * 5_000_000):
        with closing(wire.connect()) as connection:
            status, problem = wire.exchange_on(connection, [wire.upload_head("image/jpeg") + data])
            assert (status, problem["code"]) == (431, "head_too_large")
            receive_until_closed(connection)


def test_a_connection_with_thousands_of_pipelined_requests_is_closed(wire: Wire) -> None:
    """T16: a connection that sends thousands of requests without waiting for responses is closed."""
    responses = 0
    with closing(wire.connect()) as connection, suppress(OSError):
        connection.sendall(b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * MANY)
        while chunk := connection.recv(65536):
            responses += chunk.count(b"HTTP/1.1 200")
    assert responses < 100


@pytest.mark.parametrize("part", [PART % "a", PART % 'a"; filename="b'])
def test_thousands_of_form_parts_are_rejected(wire: Wire, part: str) -> None:
    """T16: 20,000 fields or files in one form get a 400 within seconds."""
    started = time.monotonic()
    body = f"{part}x\r\n".encode() * MANY + f"--{BOUNDARY}--\r\n".encode()
    for path in ("/predict-land-use", "/v1/predictions"):
        status, problem = post(wire, path, FORM, body)
        assert (status, problem["code"]) == (400, "bad_form")
    assert time.monotonic() - started < REJECTED_WITHIN_S


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"x" * 19_000_000, id="nothing but a preamble"),
        pytest.param(b"\r\n" * 9_000_000, id="empty lines"),
        pytest.param(f"--{BOUNDARY}\r\n".encode() + b"X: y\r\n" * 3_000_000, id="headers of a part"),
        pytest.param(f"--{BOUNDARY}\r\nX: ".encode() + b"y" * 19_000_000, id="a long header of a part"),
        pytest.param((PART % "x").encode() + b"y" * 19_000_000, id="a long field"),
        pytest.param((PART % ("x" * 19_000_000)).encode(), id="a long name"),
        pytest.param((PART % 'file"; filename="a').encode() + b"\r\n--atalaya-tesx" * 1_200_000, id="near boundaries"),
    ],
)
def test_a_hostile_form_is_soon_rejected(wire: Wire, body: bytes) -> None:
    """T16: a form full of preamble, headers or near boundaries is a client error within seconds."""
    started = time.monotonic()
    status, problem = post(wire, "/v1/predictions", FORM, body)
    assert (status, bool(problem["code"])) in [(400, True), (422, True), (415, True)]
    assert time.monotonic() - started < REJECTED_WITHIN_S


@pytest.mark.parametrize("charset", ["undefined", "punycode", "idna", "zlib", "utf-7"])
def test_a_form_cannot_choose_a_codec(wire: Wire, charset: str) -> None:
    """T16: a form in a charset that fails to decode, or takes minutes, is soon rejected."""
    started = time.monotonic()
    body = (PART % "a").encode() + b"a" * 500_000 + b"-" + b"9a" * 250_000 + f"\r\n--{BOUNDARY}--\r\n".encode()
    status, problem = post(wire, "/v1/predictions", f"{FORM}; charset={charset}", body)
    assert (status, problem["code"]) == (400, "bad_form")
    assert time.monotonic() - started < REJECTED_WITHIN_S


def test_too_many_urlencoded_parameters_are_rejected(wire: Wire) -> None:
    """T16: OAuth endpoints reject too many or too long parameters; a prediction route rejects URL-encoded bodies."""
    for path in ("/auth/token", "/auth/revoke", "/auth/introspect"):
        for body in (b"a=1&" * 4_000_000, b"&".join(b"a%d=1" % index for index in range(1_000)), b"a" * 15_000):
            status, response = post(wire, path, URLENCODED, body)
            assert (status, response["error"]) == (400, "invalid_request")
    status, problem = post(wire, "/v1/predictions", URLENCODED, b"a=1&" * 4_000_000)
    assert (status, problem["code"]) == (415, "unsupported_body")


@pytest.mark.parametrize("media_type", ["application/json", "text/plain", "image/jpeg", FORM])
@pytest.mark.parametrize("path", ["/v1/me/password", "/v1/keys", "/v1/users"])
def test_a_large_document_is_rejected(wire: Wire, media_type: str, path: str) -> None:
    """T16: a document over 64 KB gets a 413, whatever its declared type."""
    status, problem = post(wire, path, media_type, b"[" * 1_000_000)
    assert (status, problem["code"]) == (413, "body_too_large")


def test_a_large_body_on_an_unknown_path_is_not_read(wire: Wire) -> None:
    """T16: a request for a path without a route gets a 404 before its body arrives, and not a 413."""
    status, problem = wire.exchange(wire.head("POST", "/v1/predict", "Content-Length: 1000000000"))
    assert (status, problem["code"]) == (404, "not_found")


async def test_a_slow_request_is_cut_off(gateway: Gateway, wire: Wire) -> None:
    """T16: a client that sends nothing, or a byte now and then, is cut off; others are served meanwhile."""
    length = "Content-Length: 10000"
    begun = {
        "nothing": b"",
        "an empty line": b"\r\n",
        "a head": b"GET /livez HTTP/1.1\r\nX-Slow: y",
        "an image": wire.upload_head("image/jpeg", length),
        "a form": wire.upload_head(FORM, length) + (PART % 'file"; filename="a').encode(),
        "a chunked image": wire.upload_head("image/jpeg") + b"ffff\r\n",
        "JSON": wire.head("POST", "/v1/me/password", "Content-Type: application/json", length) + b"[",
        "parameters": wire.head("POST", "/auth/token", f"Content-Type: {URLENCODED}", length) + b"a=",
        "the rest of a rejected body": wire.head("POST", "/nowhere", length),
    }
    ended: dict[str, tuple[float, bytes]] = {}

    async def trickle(name: str, data: bytes) -> None:
        started = time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
        received = bytearray()
        with suppress(ConnectionError):
            writer.write(data)
            while not reader.at_eof():
                with suppress(TimeoutError):
                    received += await asyncio.wait_for(reader.read(65536), 0.5)
                if name != "nothing":
                    writer.write(b"\r\n" if name == "an empty line" else b"y")
                    await writer.drain()
        ended[name] = time.monotonic() - started, bytes(received)
        writer.close()

    slowest = await _slowest_live_check(gateway, lambda: asyncio.gather(*(trickle(*item) for item in begun.items())))
    assert slowest < LIVE_WITHIN_S
    assert max(seconds for seconds, _ in ended.values()) < CUT_OFF_WITHIN_S, ended
    for name in ("a head", "an image", "a form", "a chunked image", "JSON", "parameters"):
        assert b"HTTP/1.1 408 " in ended[name][1], (name, ended[name])


async def _slowest_live_check(gateway: Gateway, work: Callable[[], Awaitable[Any]]) -> float:
    """Do the work, and return the longest time in seconds that /livez took meanwhile."""
    working = asyncio.ensure_future(work())
    slowest = 0.0
    async with httpx.AsyncClient(base_url=gateway.base_url, timeout=TIMEOUT_S) as client:
        while not working.done():
            started = time.monotonic()
            assert (await client.get("/livez")).is_success
            slowest = max(slowest, time.monotonic() - started)
            await asyncio.wait({working}, timeout=0.1)
    await working
    return slowest
