"""HTTP behaviour that ordinary clients, proxies and small machines rely on."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.support.gateway import TIMEOUT_S, Gateway, make_gateway
from tests.support.paths import ATALAYA, FOREST
from tests.support.requirements import missing


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/.well-known/jwks.json", "/metrics", "/v1/me"])
def test_head_has_the_headers_of_get(gateway: Gateway, path: str) -> None:
    """HEAD returns the status and the headers of GET, and no content."""
    client = gateway.client("olga")
    got, head = client.get(path), client.head(path)
    assert client.get(path).status_code == 200  # the connection is still usable
    assert (head.status_code, head.content) == (got.status_code, b"")
    assert head.headers.keys() == got.headers.keys()
    varying = {"date", "x-request-id", "ratelimit"} | ({"content-length"} if path == "/metrics" else set())
    same = got.headers.keys() - varying
    assert {name: head.headers[name] for name in same} == {name: got.headers[name] for name in same}
    assert gateway.metric(f"http_server_request_duration_seconds_count{{{_labels('HEAD', path)}}}") == 1


def test_head_on_the_private_metrics_port(gateway: Gateway) -> None:
    """HEAD works on the private port too."""
    response = httpx.head(gateway.metrics_url, timeout=TIMEOUT_S)
    assert (response.status_code, response.content) == (200, b"")


@pytest.mark.parametrize("path", ["/nowhere", "/auth/token"])
def test_head_without_get(gateway: Gateway, path: str) -> None:
    """HEAD on a path without GET returns the same status as GET."""
    head = httpx.head(gateway.base_url + path, timeout=TIMEOUT_S)
    assert head.status_code == gateway.get(path).status_code


def _labels(method: str, route: str) -> str:
    request = f'http_request_method="{method}",http_response_status_code="200",http_route="{route}"'
    return f'error_type="",{request},url_scheme="http"'


@pytest.fixture
def gateway_with_small_tmp(tmp_path: Path) -> Iterator[Gateway]:
    """A gateway whose folder for temporary files has 64 KiB of space."""
    if os.geteuid() != 0:
        missing("mounting a small file system takes root")
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    gateway = make_gateway(tmp_path, TMPDIR=str(temporary))
    mount = f"mount -t tmpfs -o size=64k tmpfs {temporary} && exec {ATALAYA} serve"
    gateway.command = ["unshare", "--mount", "sh", "-c", mount]
    gateway.start()
    yield gateway
    gateway.stop()


def test_a_large_form_needs_no_temporary_file(gateway_with_small_tmp: Gateway) -> None:
    """An image of several megabytes in a form is classified although the temporary folder is too small for it."""
    pixels = np.random.default_rng(1).integers(0, 256, (1200, 1200, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    assert len(buffer.getvalue()) > 4_000_000
    client = gateway_with_small_tmp.client()
    for route in ("/v1/predictions", "/predict-land-use"):
        response = client.post(route, files={"file": ("large.png", buffer.getvalue())})
        assert response.status_code == 200, response.text
        assert client.post(route, files={"file": FOREST.read_bytes()}).status_code == 200
