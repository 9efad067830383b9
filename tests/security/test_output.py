"""Lines 28 and 30: every refusal is a dressed problem document, whoever refuses; what production shows is chosen."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import httpx
import pytest

MEMBERS = {"type", "title", "status", "detail", "code", "request_id"}
SECRETS = ("Traceback", 'File "', "site-packages", "sqlite", "PIL.", "Exception")


def check(answer: httpx.Response, status: int, code: str) -> None:
    """One problem document, dressed, that names no file, class or module of the gateway."""
    document = answer.json()
    assert (answer.status_code, document["code"], document["status"]) == (status, code, status)
    assert answer.headers["content-type"] == "application/problem+json"
    assert set(document) >= MEMBERS
    assert document["type"] == f"urn:atalaya:problem:{code}"
    assert answer.headers["x-request-id"] == document["request_id"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert answer.headers["cache-control"] == "no-store"
    assert "server" not in answer.headers
    assert not [secret for secret in SECRETS if secret in answer.text]


REFUSALS = [
    ("GET", "/nowhere", {}, 404, "not_found"),
    ("GET", "/v1/keys/none", {}, 404, "key_not_found"),
    ("PUT", "/v1/me", {}, 405, "method_not_allowed"),
    ("OPTIONS", "/v1/keys", {}, 405, "method_not_allowed"),
    ("POST", "/v1/me/password", {"json": "x" * 70_000}, 413, "body_too_large"),
    ("POST", "/v1/predictions", {"content": b"x"}, 415, "unsupported_body"),
    ("POST", "/v1/predictions", {"files": {"file": b"text"}}, 415, "unsupported_image"),
    ("POST", "/v1/predictions?top_k=0", {"files": {"file": b"text"}}, 422, "invalid_request"),
    ("POST", "/v1/predictions", {"files": {"other": b"text"}}, 422, "missing_file"),
    ("POST", "/v1/keys", {"content": b"{"}, 422, "invalid_request"),
    ("POST", "/v1/keys", {"content": b"\xff", "headers": {"Content-Type": "application/json"}}, 400, "bad_request"),
    ("GET", "/v1/users", {}, 403, "insufficient_scope"),
    ("GET", "/v1/me", {"headers": {"Authorization": "Bearer x"}}, 401, "invalid_token"),
    ("GET", "/v1/me", {"headers": {"Host": "evil.example"}}, 421, "host_not_allowed"),
    ("GET", "/livez", {"headers": {f"X-{index}": "y" for index in range(200)}}, 431, "head_too_large"),
]


@pytest.mark.parametrize(("method", "path", "request_", "status", "code"), REFUSALS)
def test_line_28_every_refusal_is_a_problem_document(
    gateway: Any, wire: Any, method: str, path: str, request_: dict[str, Any], status: int, code: str
) -> None:
    """From the parser of HTTP to the decoder of images: one form, security headers, nothing of the inside."""
    with httpx.Client(base_url=gateway.base_url, headers={"Authorization": f"Bearer {wire.token}"}) as client:
        check(client.request(method, path, **request_), status, code)


def test_line_28_too_many_requests_are_a_problem_document(new_gateway: Callable[..., Any]) -> None:
    """A 429 says when to come back."""
    gateway = new_gateway(LIMITS__PREDICT="1/minute", MODEL__URL="stub://")
    client = gateway.client()
    answers = [client.post("/v1/predictions", files={"file": b"text"}) for _ in range(2)]
    check(answers[1], 429, "rate_limited")
    assert int(answers[1].headers["retry-after"]) > 0


def test_line_28_what_is_no_http_is_answered_alike(wire: Any) -> None:
    """Bytes that are no HTTP get a problem document, too."""
    for garbage in (b"\x16\x03\x01\x02\x00\x01\xfc\x03\x03" + bytes(100), b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"):
        status, problem = wire.ask(garbage)
        assert (status, problem["code"]) == (400, "bad_request")


@pytest.fixture
def broken(new_gateway: Callable[..., Any]) -> Iterator[Any]:
    """A gateway with a row in its database that no code of it has written."""
    gateway = new_gateway(MODEL__URL="stub://")
    added = gateway.run("users", "add", "root", "--role", "admin", "--password-stdin", stdin="correct horse battery")
    assert added.returncode == 0, added.stderr
    with closing(sqlite3.connect(gateway.folder / "gateway.db")) as database, database:
        database.execute("UPDATE users SET role = 'secret-nonsense' WHERE name = 'ana'")
    return gateway


def test_line_28_what_nobody_foresaw_is_a_500_without_its_cause(broken: Any) -> None:
    """The caller learns an id, the log the cause."""
    answer = broken.client("root").get("/v1/users")
    check(answer, 500, "internal_error")
    assert "nonsense" not in answer.text
    lines = [json.loads(line) for line in broken.log().splitlines() if answer.json()["request_id"] in line]
    assert any("secret-nonsense" in line.get("exception", "") for line in lines)


def test_line_30_production_shows_its_documentation_when_told_to(new_gateway: Callable[..., Any]) -> None:
    """DOCS=true shows the documentation in production, under a policy of its own; errors say no more than before."""
    gateway = new_gateway(ENVIRONMENT="production", DOCS="true", MODEL__URL="stub://")
    assert httpx.get(f"{gateway.base_url}/openapi.json").json()["info"]["title"] == "Atalaya"
    page = httpx.get(f"{gateway.base_url}/docs")
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    answer = httpx.get(f"{gateway.base_url}/v1/me", headers={"Origin": "https://evil.example"})
    check(answer, 401, "missing_credentials")
    assert not [name for name in answer.headers if name.startswith("access-control")]
