"""Lines 8, 22, 23, 28 and 30: what every answer carries, whose words count, and what production refuses."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable
from typing import Any

import httpx
import pytest

FORWARDING = {
    "X-Forwarded-For": "6.6.6.6",
    "Forwarded": "for=6.6.6.6",
    "X-Real-IP": "6.6.6.6",
    "CF-Connecting-IP": "6.6.6.6",
    "True-Client-IP": "6.6.6.6",
}


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "evil.example:80"])
def test_line_22_a_poisoned_host_is_refused(gateway: Any, host: str) -> None:
    """A name that is not the gateway's is refused, before anything is decided."""
    answer = httpx.get(f"{gateway.base_url}/v1/me", headers={"Host": host})
    assert (answer.status_code, answer.json()["code"]) == (421, "host_not_allowed")
    assert host not in answer.text


def test_line_22_two_hosts_are_refused(gateway: Any) -> None:
    """A second Host header does not get past the first."""
    port = int(gateway.environment["PORT"])
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"GET /v1/me HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert answer.status in (400, 421)


def test_line_22_the_host_changes_no_decision(gateway: Any) -> None:
    """The metadata names the issuer of the settings under whatever listed name it is asked."""
    issuers = {
        httpx.get(f"{gateway.base_url}/.well-known/oauth-authorization-server", headers={"Host": host}).json()["issuer"]
        for host in ("localhost", "127.0.0.1", "LOCALHOST:1")
    }
    assert issuers == {f"http://localhost:{gateway.environment['PORT']}"}


def test_line_23_a_client_cannot_choose_its_address(new_gateway: Callable[..., Any]) -> None:
    """Ever new forwarded addresses do not get around the limit per address."""
    gateway = new_gateway(LIMITS__TOKEN="3/minute")
    statuses = [
        httpx.post(
            f"{gateway.base_url}/auth/token",
            data={"grant_type": "client_credentials"},
            headers=dict.fromkeys(FORWARDING, f"6.6.6.{index}"),
        ).status_code
        for index in range(5)
    ]
    assert statuses == [401, 401, 401, 429, 429]


def test_line_23_a_trusted_proxy_tells_the_address(new_gateway: Callable[..., Any]) -> None:
    """From a trusted proxy the right-most hop is the client; what the client wrote before it is not."""
    gateway = new_gateway(LIMITS__TOKEN="1/minute", LIMITS__TRUSTED_PROXIES="127.0.0.0/8")
    statuses = [
        httpx.post(
            f"{gateway.base_url}/auth/token",
            data={"grant_type": "client_credentials"},
            headers={"X-Forwarded-For": f"6.6.6.{index}, {client}"},
        ).status_code
        for index, client in enumerate(("203.0.113.1", "203.0.113.1", "203.0.113.2"))
    ]
    assert statuses == [401, 429, 401]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nowhere", 404), ("DELETE", "/v1/me", 405), ("POST", "/v1/predictions", 401), ("GET", "/livez", 200)],
)
def test_line_28_every_answer_is_dressed(gateway: Any, method: str, path: str, status: int) -> None:
    """Problem documents for refusals, security headers and a request id on everything, and no server's name."""
    answer = httpx.request(method, f"{gateway.base_url}{path}")
    assert answer.status_code == status
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-request-id"]
    assert "server" not in answer.headers
    if status >= 400:
        assert answer.headers["content-type"] == "application/problem+json"
        assert set(answer.json()) >= {"type", "title", "status", "detail", "code", "request_id"}
        assert "Traceback" not in answer.text


def test_line_28_what_is_no_json_is_a_problem_document(gateway: Any) -> None:
    """A body that cannot be read is refused with a code, and not repeated."""
    for body in (b"{", b"\xff", b'{"current_password": 1}', b"[" * 60_000):
        answer = gateway.client().post("/v1/me/password", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code in (400, 413, 422)
        assert answer.json()["code"]


def test_line_30_production_shows_no_documentation(new_gateway: Callable[..., Any]) -> None:
    """In production the documentation is off unless set, there is no CORS, and browsers are told to use HTTPS."""
    gateway = new_gateway(ENVIRONMENT="production")
    for path in ("/docs", "/redoc", "/openapi.json"):
        assert httpx.get(f"{gateway.base_url}{path}").status_code == 404
    answer = httpx.options(
        f"{gateway.base_url}/v1/me", headers={"Origin": "https://evil.example", "Access-Control-Request-Method": "GET"}
    )
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert "max-age" in answer.headers["strict-transport-security"]


@pytest.mark.parametrize("password", ["sesame", "atalaya", "passwordpassword"])
def test_line_30_production_refuses_a_weak_database_password(gateway: Any, password: str) -> None:
    """A database's password that is guessed first ends the start in one line that does not repeat it."""
    changes = {"ENVIRONMENT": "production", "DATABASE_URL": f"postgresql://atalaya:{password}@127.0.0.1:1/atalaya"}
    started = type(gateway)(gateway.folder, {**gateway.environment, **changes}).run("serve")
    assert (started.returncode, started.stderr.count("\n")) == (1, 1), started.stderr
    # Not for being out of reach, which it is as well.
    assert started.stderr.startswith("error: DATABASE_URL has a password that is too weak")
    assert f":{password}@" not in started.stderr


def test_line_30_a_secret_without_variety_is_weak(gateway: Any) -> None:
    """64 times the same character are no 256 bits."""
    changes = {"AUTH__SIGNING_ALGORITHM": "HS256", "AUTH__SIGNING_KEY": "a" * 64}
    started = type(gateway)(gateway.folder, {**gateway.environment, **changes}).run("serve")
    assert (started.returncode, started.stderr.count("\n")) == (1, 1), started.stderr
    assert "AUTH__SIGNING_KEY" in started.stderr


@pytest.mark.parametrize("key", ["", "changeme", "-----BEGIN PRIVATE KEY-----"])
def test_line_30_production_refuses_a_missing_or_weak_secret(gateway: Any, key: str) -> None:
    """Start-up fails with one line that names the setting and does not repeat the value."""
    changes = {"ENVIRONMENT": "production", "AUTH__SIGNING_KEY": key, "PORT": gateway.free_port()}
    started = type(gateway)(gateway.folder, {**gateway.environment, **changes}).run("serve")
    assert started.returncode == 1
    assert "AUTH__SIGNING_KEY" in started.stderr
    assert not key or key not in started.stderr
    assert len(started.stderr.strip().splitlines()) == 1


def test_the_problem_document_is_json(gateway: Any) -> None:
    """A refusal can be read by a program."""
    assert json.loads(httpx.get(f"{gateway.base_url}/nowhere").text)["status"] == 404
