"""Threat T28: every error is a problem document with security headers, whichever part of the gateway reports it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

import httpx
import pytest

from tests.security.output.problems import MEMBERS, check_problem
from tests.support.gateway import TIMEOUT_S, Gateway
from tests.support.wire import Wire

ERRORS = [
    ("GET", "/nowhere", {}, 404, "not_found"),
    ("GET", "/v1/keys/none", {}, 404, "key_not_found"),
    ("PUT", "/v1/me", {}, 405, "method_not_allowed"),
    ("OPTIONS", "/v1/keys", {}, 405, "method_not_allowed"),
    ("POST", "/v1/me/password", {"json": "x" * 70_000}, 413, "body_too_large"),
    ("POST", "/v1/predictions", {"json": {}}, 415, "unsupported_body"),
    ("POST", "/v1/predictions", {"content": b"x"}, 415, "unsupported_image"),
    ("POST", "/v1/predictions", {"files": {"file": b"text"}}, 415, "unsupported_image"),
    ("POST", "/v1/predictions?top_k=0", {"files": {"file": b"text"}}, 422, "invalid_request"),
    ("POST", "/v1/predictions", {"files": {"other": b"text"}}, 422, "missing_file"),
    ("POST", "/v1/keys", {"content": b"{"}, 415, "unsupported_body"),
    ("POST", "/v1/keys", {"content": b"\xff", "headers": {"Content-Type": "application/json"}}, 400, "bad_request"),
    ("GET", "/v1/users", {}, 403, "insufficient_scope"),
    ("GET", "/v1/me", {"headers": {"Authorization": "Bearer x"}}, 401, "invalid_token"),
    ("GET", "/v1/me", {"headers": {"Host": "evil.example"}}, 421, "host_not_allowed"),
    ("GET", "/livez", {"headers": {f"X-{index}": "y" for index in range(200)}}, 431, "head_too_large"),
]


@pytest.mark.parametrize(("method", "path", "options", "status", "code"), ERRORS)
def test_every_error_is_a_problem_document(
    gateway: Gateway, wire: Wire, method: str, path: str, options: dict[str, Any], status: int, code: str
) -> None:
    """T28: errors from the HTTP parser to the image decoder have one form, security headers and no internals."""
    with httpx.Client(base_url=gateway.base_url, auth=wire.fresh_token, timeout=TIMEOUT_S) as client:
        check_problem(client.request(method, path, **options), status, code)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nowhere", 404), ("DELETE", "/v1/me", 405), ("POST", "/v1/predictions", 401), ("GET", "/livez", 200)],
)
def test_every_response_has_security_headers(gateway: Gateway, method: str, path: str, status: int) -> None:
    """T28: every response, successful or not, has security headers and a request id, and names no server software."""
    response = httpx.request(method, f"{gateway.base_url}{path}", timeout=TIMEOUT_S)
    assert response.status_code == status
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert response.headers["x-request-id"]
    assert "server" not in response.headers
    if status >= 400:
        assert response.headers["content-type"] == "application/problem+json"
        assert set(response.json()) >= MEMBERS
        assert "Traceback" not in response.text


@pytest.mark.parametrize("body", [b"{", b"\xff", b'{"current_password": 1}', b"[" * 60_000], ids=range(4))
def test_malformed_json_is_a_problem_document(caller: httpx.Client, body: bytes) -> None:
    """T28: a body that is not the expected JSON is a client error with a code."""
    response = caller.post("/v1/me/password", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code in (400, 413, 422)
    assert response.json()["code"]


def test_a_rate_limited_request_is_a_problem_document(new_gateway: Callable[..., Gateway]) -> None:
    """T28: a 429 is a problem document with Retry-After."""
    gateway = new_gateway(LIMITS__PREDICT="1/hour", MODEL__URL="stub://")
    client = gateway.client()
    responses = [client.post("/v1/predictions", files={"file": b"text"}) for _ in range(2)]
    check_problem(responses[1], 429, "rate_limited")
    assert int(responses[1].headers["retry-after"]) > 0


def test_invalid_http_gets_a_problem_document(wire: Wire) -> None:
    """T28: bytes that are not HTTP/1.1 get a problem document, too."""
    for garbage in (b"\x16\x03\x01\x02\x00\x01\xfc\x03\x03" + bytes(100), b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"):
        status, problem = wire.exchange(garbage)
        assert (status, problem["code"]) == (400, "bad_request")


@pytest.fixture
def corrupted(new_gateway: Callable[..., Gateway]) -> Gateway:
    """A gateway with a row in its database that its own code never writes, and the administrator `root`."""
    gateway = new_gateway(MODEL__URL="stub://")
    gateway.add_user("root", "admin")
    with closing(sqlite3.connect(gateway.database_path)) as database, database:
        database.execute("UPDATE users SET role = 'secret-nonsense' WHERE name = 'ana'")
    return gateway


def test_an_unexpected_error_hides_its_cause(corrupted: Gateway) -> None:
    """T28: after an unexpected error the caller gets a 500 with a request id, and only the log shows the cause."""
    response = corrupted.client("root").get("/v1/users")
    check_problem(response, 500, "internal_error")
    assert "nonsense" not in response.text
    lines = [
        json.loads(line) for line in corrupted.complete_log().splitlines() if response.json()["request_id"] in line
    ]
    assert any("secret-nonsense" in line.get("exception.stacktrace", "") for line in lines)
