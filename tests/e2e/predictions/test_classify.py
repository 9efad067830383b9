"""`atalaya classify` against gateways that limit, reject and fail."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.support.certificates import make_authority
from tests.support.gateway import Gateway
from tests.support.paths import FOREST
from tests.support.servers.running import running


def classify(
    gateway: Gateway, *images: str, url: str = "", token: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    command = ["classify", "--url", url or gateway.base_url, "--token", token or gateway.token(), *images]
    return gateway.with_settings(**environment).run(*command)


def test_every_failing_file_is_named(gateway: Gateway, tmp_path: Path) -> None:
    """Each file that fails gets an error line of its own, and the others are classified."""
    text = tmp_path / "text.jpg"
    text.write_text("no image")
    result = classify(gateway, str(text), str(FOREST), str(tmp_path / "absent.jpg"), str(tmp_path))
    assert result.returncode == 1
    assert str(FOREST) in result.stdout
    assert result.stderr.splitlines() == [
        f"{text}: This is not a JPEG, PNG, WebP or TIFF image. Convert it to one of these.",
        f"{tmp_path}/absent.jpg: The file cannot be read: no such file or directory.",
        f"{tmp_path}: The file cannot be read: is a directory.",
        "error: 3 of 4 images failed.",
    ]


def test_a_rejected_credential_stops_the_command(gateway: Gateway) -> None:
    """The first 401 ends the command: no further image is sent."""
    before = gateway.metric('atalaya_auth_events_total{event="access",outcome="invalid"}')
    result = classify(gateway, *[str(FOREST)] * 5, token="atl_wrong")
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert result.stderr.endswith(" 5 of 5 images were not classified.\n")
    assert gateway.metric('atalaya_auth_events_total{event="access",outcome="invalid"}') == before + 1


def test_a_rate_limit_is_waited_for(new_gateway: Callable[..., Gateway]) -> None:
    """When the gateway limits the rate, the command waits as long as the response says, and classifies every image."""
    gateway = new_gateway(MODEL__URL="stub://", LIMITS__PREDICT="2/20second")
    result = classify(gateway, "--json", *[str(FOREST)] * 3)
    assert result.returncode == 0, result.stderr
    assert [bool(each["label"]) for each in json.loads(result.stdout)] == [True] * 3
    assert gateway.metric('atalaya_rate_limited_total{limit="predict"}') > 0


def test_errors_of_tls_are_explained(new_gateway: Callable[..., Gateway], tmp_path: Path) -> None:
    """An untrusted certificate, a server without TLS and a server that is not a gateway get a clear error message."""
    authority = make_authority(tmp_path / "pki")
    certificate, key = authority.issue("CN=gateway")
    gateway = new_gateway(MODEL__URL="stub://", TLS_CERTIFICATE=certificate, TLS_KEY=key)
    untrusted = classify(gateway, str(FOREST), token="x")
    assert untrusted.stderr.startswith(f"error: {gateway.base_url} cannot be reached: its certificate is not trusted (")
    trusted = classify(gateway, str(FOREST), token="x", SSL_CERT_FILE=str(authority.path))
    assert "not a valid access token" in trusted.stderr
    with other_server() as port:
        no_tls = classify(gateway, str(FOREST), url=f"https://127.0.0.1:{port}", token="x")
        assert "check whether the address begins with http:// or https://" in no_tls.stderr
        other = classify(gateway, str(FOREST), url=f"http://127.0.0.1:{port}", token="x")
        assert f"error: http://127.0.0.1:{port} is not an Atalaya gateway: it sent HTTP 501" in other.stderr


@pytest.mark.parametrize("token", ["two\nlines", "ключ"])
def test_a_token_that_http_cannot_carry(gateway: Gateway, token: str) -> None:
    """A token that HTTP cannot carry is a usage error, whose message does not repeat the token."""
    result = classify(gateway, str(FOREST), token=token)
    assert result.returncode == 2
    assert token not in result.stderr


@contextmanager
def other_server() -> Iterator[int]:
    """Run an HTTP server that is not a gateway; yield its port."""
    with running(HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)) as server:
        yield server.server_port
