"""Line 16: floods and trickles stay bounded in memory and time, and the gateway answers others meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import closing, suppress
from typing import Any

import httpx
import pytest

BOUNDARY = "atalaya-test"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
URLENCODED = "application/x-www-form-urlencoded"
PART = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="%s"\r\n\r\n'
MANY = 20_000
TRICKLE_LIMIT_S = 15

pytestmark = pytest.mark.usefixtures("bounded")


def lengthy(wire: Any, path: str, content_type: str, body: bytes) -> tuple[int, dict[str, Any]]:
    head = wire.head("POST", path, f"Content-Type: {content_type}", f"Content-Length: {len(body)}")
    return wire.ask(head, body)


@pytest.mark.parametrize(
    "header",
    [
        pytest.param("\r\n".join(f"X-{index}: y" for index in range(1_000)), id="a thousand headers"),
        pytest.param("X-Long: " + "y" * 5_000_000, id="a header of 5 MB"),
        pytest.param("Cookie: " + "y" * 33_000, id="a header just over the cap"),
        pytest.param("X" * 200_000 + ": y", id="a name of 200 KB"),
    ],
)
def test_line_16_a_flood_of_headers_is_refused(wire: Any, header: str) -> None:
    """Too many headers, or too long ones, are a 431 with a problem document."""
    status, problem = wire.ask(wire.head("GET", "/livez", header))
    assert (status, problem["code"]) == (431, "head_too_large")


def test_line_16_a_head_without_an_end_is_refused(wire: Any) -> None:
    """A request line of 5 MB and headers that never end are refused while they arrive."""
    for flood in ([b"GET /livez?" + b"y" * 5_000_000], [b"GET /livez HTTP/1.1\r\n", *[b"X: y\r\n"] * 200_000]):
        status, problem = wire.ask(*flood)
        assert (status, problem["code"]) == (431, "head_too_large")


def test_line_16_trailers_and_chunk_extensions_are_bounded(wire: Any) -> None:
    """What may follow a chunked body, or stand beside the length of a chunk, is no way around the cap on headers."""
    for flood in (b"1\r\nx\r\n0\r\n" + b"X: y\r\n" * 500_000, b"1;" + b"y" * 5_000_000):
        with closing(wire.connect()) as connection:
            with suppress(OSError):
                connection.sendall(wire.upload("image/jpeg") + flood)
            with suppress(ConnectionResetError):
                while connection.recv(65536):
                    """Until the gateway has closed."""


def test_line_16_thousands_of_requests_in_line_are_refused(wire: Any) -> None:
    """A connection that asks without waiting for answers is closed."""
    answers = 0
    with closing(wire.connect()) as connection, suppress(OSError):
        connection.sendall(b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * MANY)
        while chunk := connection.recv(65536):
            answers += chunk.count(b"HTTP/1.1 200")
    assert answers < 100


@pytest.mark.parametrize("part", [PART % "a", PART % 'a"; filename="b'])
def test_line_16_thousands_of_parts_are_refused(wire: Any, part: str) -> None:
    """20,000 fields or files in one form are a 400, soon."""
    started = time.monotonic()
    body = f"{part}x\r\n".encode() * MANY + f"--{BOUNDARY}--\r\n".encode()
    for path in ("/predict-land-use", "/v1/predictions"):
        status, problem = lengthy(wire, path, FORM, body)
        assert (status, problem["code"]) == (400, "bad_form")
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"x" * 19_000_000, id="a preamble that is all"),
        pytest.param(b"\r\n" * 9_000_000, id="empty lines"),
        pytest.param(f"--{BOUNDARY}\r\n".encode() + b"X: y\r\n" * 3_000_000, id="headers of a part"),
        pytest.param(f"--{BOUNDARY}\r\nX: ".encode() + b"y" * 19_000_000, id="a long header of a part"),
        pytest.param((PART % "x").encode() + b"y" * 19_000_000, id="a long field"),
        pytest.param((PART % ("x" * 19_000_000)).encode(), id="a long name"),
        pytest.param((PART % 'file"; filename="a').encode() + b"\r\n--atalaya-tesx" * 1_200_000, id="near boundaries"),
    ],
)
def test_line_16_a_hostile_form_is_refused_soon(wire: Any, body: bytes) -> None:
    """Whatever fills a form up to the cap, the refusal is a 4xx within seconds."""
    started = time.monotonic()
    status, problem = lengthy(wire, "/v1/predictions", FORM, body)
    assert (status, bool(problem["code"])) in [(400, True), (422, True), (415, True)]
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("charset", ["undefined", "punycode", "idna", "zlib", "utf-7"])
def test_line_16_a_form_chooses_no_codec(wire: Any, charset: str) -> None:
    """A form in a charset that fails or takes minutes to decode is refused before it is read."""
    started = time.monotonic()
    body = (PART % "a").encode() + b"a" * 500_000 + b"-" + b"9a" * 250_000 + f"\r\n--{BOUNDARY}--\r\n".encode()
    status, problem = lengthy(wire, "/v1/predictions", f"{FORM}; charset={charset}", body)
    assert (status, problem["code"]) == (400, "bad_form")
    assert time.monotonic() - started < 2


def test_line_16_a_flood_of_urlencoded_fields_is_refused(wire: Any) -> None:
    """The OAuth endpoints take 16 KB of parameters and 16 of them; the prediction routes take no such body."""
    for path in ("/auth/token", "/auth/revoke", "/auth/introspect"):
        for body in (b"a=1&" * 4_000_000, b"&".join(b"a%d=1" % index for index in range(1_000)), b"a" * 15_000):
            status, answer = lengthy(wire, path, URLENCODED, body)
            assert (status, answer["error"]) == (400, "invalid_request")
    status, problem = lengthy(wire, "/v1/predictions", URLENCODED, b"a=1&" * 4_000_000)
    assert (status, problem["code"]) == (415, "unsupported_body")


@pytest.mark.parametrize("media_type", ["application/json", "text/plain", "image/jpeg", FORM])
@pytest.mark.parametrize("path", ["/v1/me/password", "/v1/keys", "/v1/users", "/nowhere"])
def test_line_16_a_large_document_is_refused(wire: Any, media_type: str, path: str) -> None:
    """A document, which is read before anybody knows whose it is, has 64 KB, whatever type it says it is of."""
    status, problem = lengthy(wire, path, media_type, b"[" * 1_000_000)
    assert (status, problem["code"]) == (413, "body_too_large")


async def test_line_16_who_trickles_is_cut_off(gateway: Any, wire: Any) -> None:
    """Whoever says nothing, or a byte now and then, is cut off after ten seconds; others are answered meanwhile."""
    length = "Content-Length: 10000"
    begun = {
        "nothing": b"",
        "an empty line": b"\r\n",
        "a head": b"GET /livez HTTP/1.1\r\nX-Slow: y",
        "an image": wire.upload("image/jpeg", length),
        "a form": wire.upload(FORM, length) + (PART % 'file"; filename="a').encode(),
        "a chunked image": wire.upload("image/jpeg") + b"ffff\r\n",
        "JSON": wire.head("POST", "/v1/me/password", "Content-Type: application/json", length) + b"[",
        "parameters": wire.head("POST", "/auth/token", f"Content-Type: {URLENCODED}", length) + b"a=",
        "the rest of a refused body": wire.head("POST", "/nowhere", length),
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

    slowest = await _meanwhile(gateway, lambda: asyncio.gather(*(trickle(*item) for item in begun.items())))
    assert slowest < 0.5
    assert max(seconds for seconds, _ in ended.values()) < TRICKLE_LIMIT_S, ended
    for name in ("a head", "an image", "a form", "a chunked image", "JSON", "parameters"):
        assert b"HTTP/1.1 408 " in ended[name][1], (name, ended[name])


async def _meanwhile(gateway: Any, work: Callable[[], Awaitable[Any]]) -> float:
    """Do the work; returns the longest time in seconds in which /livez was answered meanwhile."""
    working = asyncio.ensure_future(work())
    slowest = 0.0
    async with httpx.AsyncClient(base_url=gateway.base_url) as client:
        while not working.done():
            started = time.monotonic()
            assert (await client.get("/livez")).is_success
            slowest = max(slowest, time.monotonic() - started)
            await asyncio.wait({working}, timeout=0.1)
    await working
    return slowest
