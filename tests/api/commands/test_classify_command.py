"""`atalaya classify` against a server of the test: what it sends, and what it prints when it ends early."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from api.cli import run
from model.imaging.bounds import MAX_BYTES
from tests.support.servers.running import running

PREDICTION = {"id": "1", "label": "forest", "confidence": 0.9, "model": {"name": "m", "version": "1.0"}}


class Handler(BaseHTTPRequestHandler):
    """Predicts forest; an image that contains "reject" is a 401, and Ctrl-C arrives together with "interrupt"."""

    bodies: list[bytes]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.bodies.append(body)
        if b"interrupt" in body:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            return
        rejected = b"reject" in body
        self.send_response(401 if rejected else 200)
        self.end_headers()
        self.wfile.write(json.dumps({"detail": "Log in again."} if rejected else PREDICTION).encode())

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    Handler.bodies = []
    with running(HTTPServer(("127.0.0.1", 0), Handler)) as server:
        yield server


def classify(server: HTTPServer, *arguments: str) -> int:
    return run(["classify", "--url", f"http://127.0.0.1:{server.server_port}", "--token", "x", *arguments])


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["table", "json"])
def test_an_interrupted_command_prints_its_results(
    options: list[str], server: HTTPServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C ends the command with status 130, and the images that were classified before are printed."""
    images = [tmp_path / name for name in ("a.jpg", "b.jpg", "c.jpg")]
    for image in images:
        image.write_text("interrupt" if image.name == "b.jpg" else "image")
    assert classify(server, *options, *map(str, images)) == 130
    output = capsys.readouterr()
    assert output.err == ""
    assert [name for name in ("a.jpg", "b.jpg", "c.jpg") if name in output.out] == ["a.jpg"]
    assert not options or [each["label"] for each in json.loads(output.out)] == ["forest"]


def test_a_file_name_may_have_any_bytes(server: HTTPServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file whose name is not UTF-8 is classified; the name is sent with a replacement character."""
    image = tmp_path / os.fsdecode(b"\xff.jpg")
    image.write_text("image")
    assert classify(server, str(image), "--json") == 0
    (result,) = json.loads(capsys.readouterr().out)
    assert (result["image"], result["model"]) == (str(image), "m-v1.0")
    assert 'filename="\N{REPLACEMENT CHARACTER}.jpg"'.encode() in Handler.bodies[0]


def test_a_file_that_is_too_large_is_not_sent(
    server: HTTPServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file above the limit of an image is reported as such, and the other images are classified."""
    large, image = tmp_path / "large.tif", tmp_path / "a.jpg"
    large.touch()
    os.truncate(large, 1 << 40)
    image.write_text("image")
    assert classify(server, str(large), str(image)) == 1
    output = capsys.readouterr()
    assert output.err.splitlines() == [
        f"{large}: The image has {1 << 40} bytes; the limit is {MAX_BYTES}. Compress it.",
        "error: 1 of 2 images failed.",
    ]
    assert "a.jpg" in output.out
    assert len(Handler.bodies) == 1


@pytest.mark.parametrize("first", ["reject", "image"])
def test_without_results_json_is_the_error(
    first: str, server: HTTPServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --json, a rejected credential is an error document, unless there are results, which are printed instead."""
    images = [tmp_path / "a.jpg", tmp_path / "b.jpg"]
    for image, content in zip(images, (first, "reject"), strict=True):
        image.write_text(content)
    assert classify(server, "--json", *map(str, images)) == 1
    output = capsys.readouterr()
    document = json.loads(output.out)
    if first == "image":
        assert [each["label"] for each in document] == ["forest"]
    else:
        detail = "Log in again. 2 of 2 images were not classified."
        assert document == {"error": {"code": "command_failed", "detail": detail}}
        assert output.err == f"error: {detail}\n"


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("ftp://x", "--url: Only http:// and https:// are supported, not ftp://x."),
        ("x:8000", "--url: x:8000 has no scheme. Write http://x:8000 or https://x:8000."),
    ],
)
def test_an_address_of_no_http_server_is_explained(url: str, problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An address with another scheme, or without any, is a usage error that says what is wrong with it."""
    assert run(["classify", "--url", url, "--token", "x", "a.jpg"]) == 2
    assert capsys.readouterr().err == f"error: Invalid value: {problem}\n"
