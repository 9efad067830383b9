"""Lines 15, 17 and 18: how much a caller may send, and what becomes of files that are not what they seem."""

from __future__ import annotations

import io
import json
import socketserver
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

MAX_BODY = 20_000_000 + 64 * 1024
ROUTES = ("/predict-land-use", "/v1/predictions")
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF")


@pytest.fixture(scope="session")
def caller(gateway: Any) -> httpx.Client:
    made: httpx.Client = gateway.client()
    return made


def encoded(image: Image.Image, name: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


def noise(name: str) -> bytes:
    """A valid image of 32x32 whose pixels take most of its bytes."""
    return encoded(Image.fromarray(np.random.default_rng(1).integers(0, 256, (32, 32, 3), np.uint8)), name)


@pytest.mark.parametrize("route", ROUTES)
def test_line_15_an_announced_body_is_refused_before_it_is_sent(wire: Any, route: str) -> None:
    """One byte over the cap by Content-Length is a 413, although no byte of the body was sent."""
    status, problem = wire.ask(wire.head("POST", route, "Content-Type: image/jpeg", f"Content-Length: {MAX_BODY + 1}"))
    assert (status, problem["code"]) == (413, "body_too_large")


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("content_type", ["image/jpeg", "multipart/form-data; boundary=b"])
def test_line_15_a_body_without_a_length_is_cut_at_the_cap(wire: Any, content_type: str) -> None:
    """A body that streams without an end is a 413 once it passes the cap."""

    def endless() -> Iterator[bytes]:
        yield wire.upload(content_type)
        start = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + bytes(1_000)
        yield b"%x\r\n%b\r\n" % (len(start), start)
        while True:
            yield b"%x\r\n%b\r\n" % (1_000_000, bytes(1_000_000))

    with closing(wire.connect()) as connection:
        status, problem = wire.ask_on(connection, endless())
    assert (status, problem["code"]) == (413, "body_too_large")


@pytest.mark.parametrize("length", ["-1", "1e3", "10, 10", "0x10", "9" * 30])
def test_line_15_a_false_length_is_refused(wire: Any, length: str) -> None:
    """A Content-Length that is no number, or none that can be, is refused."""
    status, problem = wire.ask(wire.upload("image/jpeg", f"Content-Length: {length}"), b"x")
    assert (status, problem["code"]) in [(400, "bad_request"), (413, "body_too_large")]


def test_line_15_a_length_and_chunks_at_once_are_refused(wire: Any) -> None:
    """Two ways to tell where the body ends, which a proxy might read otherwise, are none."""
    status, problem = wire.ask(
        wire.upload("image/jpeg", "Content-Length: 5", "Transfer-Encoding: chunked"), b"0\r\n\r\n"
    )
    assert (status, problem["code"]) == (400, "bad_request")


def test_line_15_pixels_are_counted_before_they_are_decoded(caller: httpx.Client) -> None:
    """A header that claims too many pixels is a 413, although the pixels are not there: nothing was decoded."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    answer = caller.post("/v1/predictions", files={"file": data})
    assert (answer.status_code, answer.json()["code"]) == (413, "image_too_many_pixels")


@pytest.mark.parametrize("name", FORMATS)
def test_line_15_the_content_decides_the_format(caller: httpx.Client, name: str) -> None:
    """A file's name and its declared type change nothing: an image is taken under any, another file under none."""
    lying = {"file": ("image.txt", noise(name), "text/plain")}
    assert caller.post("/v1/predictions", files=lying).json()["image"]["format"] == name
    other = "image/png" if name == "JPEG" else "image/jpeg"
    answer = caller.post("/v1/predictions", content=noise(name), headers={"Content-Type": other})
    assert answer.json()["image"]["format"] == name
    posing = {"file": (f"image.{name.lower()}", b"GIF89a" + bytes(40), f"image/{name.lower()}")}
    answer = caller.post("/v1/predictions", files=posing)
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_image")


@pytest.mark.parametrize(("name", "options"), [("WEBP", {"lossless": True}), ("TIFF", {}), ("PNG", {})])
def test_line_15_the_first_frame_alone_counts(caller: httpx.Client, name: str, options: dict[str, Any]) -> None:
    """Of a film or a file of several pages the first picture is classified, as if it were alone."""
    first, *others = [Image.new("RGB", (40, 40), colour) for colour in ("red", "blue", "green")]
    still = encoded(first, name, **options)
    film = encoded(first, name, save_all=True, append_images=others, **options)
    answers = [caller.post("/v1/predictions", files={"file": data}).json() for data in (still, film)]
    assert answers[0]["predictions"] == answers[1]["predictions"]
    assert answers[0]["image"]["sha256"] != answers[1]["image"]["sha256"]


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "..\\..\\a.jpg", "a.jpg\x00.php", "/dev/stdin", "a" * 3_000, "%2e%2e%2fpasswd"],
)
def test_line_17_the_name_of_a_file_is_no_path(gateway: Any, caller: httpx.Client, name: str) -> None:
    """What a client calls its file opens nothing, writes nothing and appears nowhere."""
    before = {path for path in gateway.folder.rglob("*") if path.name == Path(name).name}
    answer = caller.post("/v1/predictions", files={"file": (name, noise("PNG"))})
    assert answer.status_code == 200
    assert {path for path in gateway.folder.rglob("*") if path.name == Path(name).name} == before
    assert name not in answer.text
    assert name not in gateway.log()


def test_line_17_an_address_is_not_fetched(gateway: Any, caller: httpx.Client) -> None:
    """An address, wherever a caller puts it, is not asked for."""
    asked = []

    class Listening(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            asked.append(self.client_address)

    with socketserver.TCPServer(("127.0.0.1", 0), Listening) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}/image.jpg"
        answers = [
            caller.post("/v1/predictions", files={"file": url.encode()}),
            caller.post("/v1/predictions", data={"file": url, "url": url}, files={"other": b"x"}),
            caller.post("/v1/predictions", content=url, headers={"Content-Type": "image/jpeg"}),
            caller.post("/v1/predictions", content=url, headers={"Content-Type": "text/uri-list"}),
            caller.post("/v1/predictions", json={"url": url, "file": url}),
            caller.post("/v1/predictions", params={"url": url, "file": url}, files={"file": (url, url.encode())}),
            caller.post("/predict-land-use", files={"file": f'<svg><image href="{url}"/></svg>'.encode()}),
        ]
        server.shutdown()
        thread.join()
    assert [answer.status_code for answer in answers] == [415, 422, 415, 415, 415, 415, 415]
    assert asked == []
    assert url not in gateway.log()


def hostile_files() -> Iterator[Any]:
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
def test_line_18_a_file_that_is_no_image_is_refused_with_a_code(caller: httpx.Client, route: str, data: bytes) -> None:
    """What cannot be decoded is a 4xx with a code and a sentence, which says nothing of the decoder."""
    answer = caller.post(route, files={"file": ("a.jpg", data)})
    assert answer.status_code in (413, 415, 422), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"]
    assert "PIL" not in answer.text
    assert "Traceback" not in answer.text


@pytest.mark.parametrize("name", FORMATS)
def test_line_18_what_follows_an_image_is_ignored_or_refused(caller: httpx.Client, name: str) -> None:
    """An image with a program, an archive or another image behind it is that image, and never a 500."""
    alone = caller.post("/v1/predictions", files={"file": noise(name)}).json()
    for tail in (b"<?php system($_GET['c']); ?>", b"PK\x03\x04" + bytes(100), noise("PNG"), noise("JPEG")):
        answer = caller.post("/v1/predictions", files={"file": noise(name) + tail})
        if answer.status_code == 200:
            assert answer.json()["predictions"] == alone["predictions"]
        else:
            assert (answer.status_code, bool(json.loads(answer.text)["code"])) == (422, True)
