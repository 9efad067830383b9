"""Threats T15, T17 and T18: the size of uploads, file names and URLs, and files that are not what they claim to be."""

from __future__ import annotations

import io
import json
import socketserver
import struct
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.support.gateway import Gateway
from tests.support.servers.running import running
from tests.support.wire import Wire

MAX_BODY = 20_000_000 + 64 * 1024
ROUTES = ("/predict-land-use", "/v1/predictions")
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF")


def encoded(image: Image.Image, name: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


def noise(name: str) -> bytes:
    """Return a valid image of 32x32 pixels, which take most of its bytes."""
    return encoded(Image.fromarray(np.random.default_rng(1).integers(0, 256, (32, 32, 3), np.uint8)), name)


@pytest.mark.parametrize("route", ROUTES)
def test_an_announced_body_is_rejected_before_it_is_sent(wire: Wire, route: str) -> None:
    """T15: a Content-Length one byte over the limit gets a 413 before any byte of the body is sent."""
    status, problem = wire.exchange(
        wire.head("POST", route, "Content-Type: image/jpeg", f"Content-Length: {MAX_BODY + 1}")
    )
    assert (status, problem["code"]) == (413, "body_too_large")


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("content_type", ["image/jpeg", "multipart/form-data; boundary=b"])
def test_a_streamed_body_is_cut_off_at_the_limit(wire: Wire, content_type: str) -> None:
    """T15: an endless chunked body gets a 413 once it exceeds the limit."""

    def endless() -> Iterator[bytes]:
        yield wire.upload_head(content_type)
        start = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + bytes(1_000)
        yield b"%x\r\n%b\r\n" % (len(start), start)
        while True:
            yield b"%x\r\n%b\r\n" % (1_000_000, bytes(1_000_000))

    with closing(wire.connect()) as connection:
        status, problem = wire.exchange_on(connection, endless())
    assert (status, problem["code"]) == (413, "body_too_large")


@pytest.mark.parametrize("length", ["-1", "1e3", "10, 10", "0x10", "9" * 30])
def test_an_invalid_length_is_rejected(wire: Wire, length: str) -> None:
    """T15: a Content-Length that is not a number, or is too large, is rejected."""
    status, problem = wire.exchange(wire.upload_head("image/jpeg", f"Content-Length: {length}"), b"x")
    assert (status, problem["code"]) in [(400, "bad_request"), (413, "body_too_large")]


def test_a_length_and_chunks_together_are_rejected(wire: Wire) -> None:
    """T15: a body with both a length and chunks, which a proxy might delimit differently, is rejected."""
    status, problem = wire.exchange(
        wire.upload_head("image/jpeg", "Content-Length: 5", "Transfer-Encoding: chunked"), b"0\r\n\r\n"
    )
    assert (status, problem["code"]) == (400, "bad_request")


def test_pixels_are_counted_before_decoding(caller: httpx.Client) -> None:
    """T15: an image whose header claims too many pixels gets a 413 before decoding, which would fail: it has none."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    response = caller.post("/v1/predictions", files={"file": data})
    assert (response.status_code, response.json()["code"]) == (413, "image_too_many_pixels")


@pytest.mark.parametrize("name", FORMATS)
def test_the_content_determines_the_format(caller: httpx.Client, name: str) -> None:
    """T15: a file's name and declared type are ignored; only its content determines its format."""
    mislabelled = {"file": ("image.txt", noise(name), "text/plain")}
    assert caller.post("/v1/predictions", files=mislabelled).json()["image"]["format"] == name
    other = "image/png" if name == "JPEG" else "image/jpeg"
    response = caller.post("/v1/predictions", content=noise(name), headers={"Content-Type": other})
    assert response.json()["image"]["format"] == name
    disguised = {"file": (f"image.{name.lower()}", b"GIF89a" + bytes(40), f"image/{name.lower()}")}
    response = caller.post("/v1/predictions", files=disguised)
    assert (response.status_code, response.json()["code"]) == (415, "unsupported_image")


@pytest.mark.parametrize(("name", "options"), [("WEBP", {"lossless": True}), ("TIFF", {}), ("PNG", {})])
def test_only_the_first_frame_is_classified(caller: httpx.Client, name: str, options: dict[str, Any]) -> None:
    """T15: of an animation or a file with several pages, the gateway classifies only the first frame."""
    first, *others = [Image.new("RGB", (40, 40), colour) for colour in ("red", "blue", "green")]
    still = encoded(first, name, **options)
    animation = encoded(first, name, save_all=True, append_images=others, **options)
    responses = [caller.post("/v1/predictions", files={"file": data}).json() for data in (still, animation)]
    assert responses[0]["predictions"] == responses[1]["predictions"]
    assert responses[0]["image"]["sha256"] != responses[1]["image"]["sha256"]


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "..\\..\\a.jpg", "a.jpg\x00.php", "/dev/stdin", "a" * 3_000, "%2e%2e%2fpasswd"],
)
def test_a_file_name_is_never_used_as_a_path(gateway: Gateway, caller: httpx.Client, name: str) -> None:
    """T17: the gateway writes no file with the client's file name, which appears in no response or log line."""
    before = {path for path in gateway.folder.rglob("*") if path.name == Path(name).name}
    response = caller.post("/v1/predictions", files={"file": (name, noise("PNG"))})
    assert response.status_code == 200
    assert {path for path in gateway.folder.rglob("*") if path.name == Path(name).name} == before
    assert name not in response.text
    assert name not in gateway.complete_log()


def test_a_url_is_never_fetched(gateway: Gateway, caller: httpx.Client) -> None:
    """T17: the gateway does not fetch a URL, wherever in a request a caller puts it."""
    connections: list[Any] = []

    class Recorder(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            connections.append(self.client_address)

    with running(socketserver.TCPServer(("127.0.0.1", 0), Recorder)) as server:
        url = f"http://127.0.0.1:{server.server_address[1]}/image.jpg"
        responses = [
            caller.post("/v1/predictions", files={"file": url.encode()}),
            caller.post("/v1/predictions", data={"file": url, "url": url}, files={"other": b"x"}),
            caller.post("/v1/predictions", content=url, headers={"Content-Type": "image/jpeg"}),
            caller.post("/v1/predictions", content=url, headers={"Content-Type": "text/uri-list"}),
            caller.post("/v1/predictions", json={"url": url, "file": url}),
            caller.post("/v1/predictions", params={"url": url, "file": url}, files={"file": (url, url.encode())}),
            caller.post("/predict-land-use", files={"file": f'<svg><image href="{url}"/></svg>'.encode()}),
        ]
    assert [response.status_code for response in responses] == [415] * 7
    assert connections == []
    assert url not in gateway.complete_log()


def hostile_files() -> Iterator[Any]:
    """Yield files that are not images, as parameters."""
    yield pytest.param(b"", id="nothing")
    yield pytest.param(b"\0" * 1_000, id="zeros")
    for name in FORMATS:
        data = noise(name)
        yield pytest.param(data[:8], id=f"{name}: signature alone")
        yield pytest.param(data[: len(data) // 2], id=f"{name}: first half")
        yield pytest.param(data[:12] + bytes(len(data) - 12), id=f"{name}: zeros")
        yield pytest.param(data[:12] + data[12:][::-1], id=f"{name}: backwards")
        yield pytest.param(b"<html><script>alert(1)</script>" + data, id=f"{name}: behind HTML")
        yield pytest.param(b"%PDF-1.7\n" + data, id=f"{name}: behind PDF")
        yield pytest.param(b"GIF89a/*" + data, id=f"{name}: behind GIF")
    yield pytest.param(b"PK\x03\x04" + bytes(200), id="ZIP")
    yield pytest.param(b'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY a SYSTEM "file:///etc/passwd">]>', id="SVG")


@pytest.mark.parametrize("data", list(hostile_files()))
@pytest.mark.parametrize("route", ROUTES)
def test_a_file_that_is_no_image_is_rejected_with_a_code(caller: httpx.Client, route: str, data: bytes) -> None:
    """T18: a file that cannot be decoded is a client error with a code, and reveals nothing about the decoder."""
    response = caller.post(route, files={"file": ("a.jpg", data)})
    assert response.status_code in (413, 415, 422), response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["code"]
    assert "PIL" not in response.text
    assert "Traceback" not in response.text


@pytest.mark.parametrize("name", FORMATS)
def test_data_behind_an_image_is_ignored_or_rejected(caller: httpx.Client, name: str) -> None:
    """T18: an image followed by a script, an archive or another image is classified as that image, or gets a 422."""
    alone = caller.post("/v1/predictions", files={"file": noise(name)}).json()
    for tail in (b"<?php system($_GET['c']); ?>", b"PK\x03\x04" + bytes(100), noise("PNG"), noise("JPEG")):
        response = caller.post("/v1/predictions", files={"file": noise(name) + tail})
        if response.status_code == 200:
            assert response.json()["predictions"] == alone["predictions"]
        else:
            assert (response.status_code, bool(json.loads(response.text)["code"])) == (422, True)
