"""What every answer has in common, and the small routes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.prediction.admission import MAX_BODY_BYTES
from api.settings import Environment


class RememberedErrors:
    """A reporter that keeps what it is given."""

    def __init__(self) -> None:
        self.captured: list[tuple[BaseException, Mapping[str, str]]] = []

    def capture(self, error: BaseException, tags: Mapping[str, str]) -> None:
        self.captured.append((error, tags))

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [("GET", "/nowhere", 404, "not_found"), ("DELETE", "/v1/predictions", 405, "method_not_allowed")],
)
def test_unknown_paths_and_methods(client: TestClient, method: str, path: str, status: int, code: str) -> None:
    """An unknown path and a wrong method are problem documents, too."""
    answer = client.request(method, path)
    assert answer.status_code == status
    assert answer.json() == {
        "type": f"urn:atalaya:problem:{code}",
        "title": answer.json()["title"],
        "status": status,
        "detail": answer.json()["detail"],
        "code": code,
        "request_id": answer.headers["X-Request-ID"],
    }


@pytest.mark.parametrize("path", ["/livez", "/nowhere", "/v1/me"])
def test_security_headers(client: TestClient, path: str) -> None:
    """Every answer forbids sniffing, framing and storing."""
    headers = client.get(path).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["Cache-Control"] == "no-store"


def test_https_is_asked_for_in_production(make_client: Any) -> None:
    """In production browsers are told to come back by HTTPS."""
    answer = make_client(environment=Environment.PRODUCTION).get("/livez")
    assert answer.headers["Strict-Transport-Security"].startswith("max-age=")


def test_request_id_is_kept(client: TestClient) -> None:
    """A harmless request id is answered as it came."""
    assert client.get("/livez", headers={"X-Request-ID": "trace-0123456789"}).headers["X-Request-ID"] == (
        "trace-0123456789"
    )


@pytest.mark.parametrize("offered", ["short", "x" * 65, 'a"b{}c: d', "ünïcödé-id".encode().decode("latin-1")])
def test_bad_request_id_is_replaced(client: TestClient, offered: str) -> None:
    """A request id that could disturb a log is replaced."""
    assert client.get("/livez", headers={"X-Request-ID": offered.encode("latin-1")}).headers["X-Request-ID"] != offered


def test_announced_body_over_the_cap(client: TestClient, bearer: dict[str, str]) -> None:
    """A body that announces too many bytes is refused before it is read."""
    headers = {**bearer, "Content-Type": "image/jpeg", "Content-Length": str(MAX_BODY_BYTES + 1)}
    answer = client.post("/v1/predictions", headers=headers, content=b"x")
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
    assert answer.headers["X-Request-ID"] == answer.json()["request_id"]


def test_streamed_body_over_the_cap(client: TestClient, bearer: dict[str, str]) -> None:
    """A body without an announced length is counted while it streams."""
    chunk = bytes(1024 * 1024)
    chunks = MAX_BODY_BYTES // len(chunk) + 2
    answer = client.post(
        "/v1/predictions",
        headers={**bearer, "Content-Type": "image/jpeg"},
        content=(chunk for _ in range(chunks)),
    )
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


def test_unforeseen_error(make_client: Any) -> None:
    """An unforeseen error is a 500 that says nothing of its cause, and is reported with the request's id."""
    reporter = RememberedErrors()
    client = make_client(raise_errors=False, reporter=reporter)

    async def fail() -> None:
        raise ZeroDivisionError("the secret cause")

    client.app.add_api_route("/fail", fail)
    answer = client.get("/fail")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert "secret" not in answer.text
    ((error, tags),) = reporter.captured
    assert isinstance(error, ZeroDivisionError)
    assert tags == {"request_id": answer.headers["X-Request-ID"], "route": "/fail"}


def test_readiness_names_its_checks(client: TestClient) -> None:
    """/readyz names each dependency and its state."""
    answer = client.get("/readyz")
    assert answer.status_code == 200
    assert answer.json() == {"status": "ready", "checks": {"database": "ok", "ledger": "ok", "model": "ok"}}


def test_me(client: TestClient, bearer: dict[str, str]) -> None:
    """/v1/me tells the caller who the gateway takes them for."""
    body = client.get("/v1/me", headers=bearer).json()
    assert (body["name"], body["role"]) == ("ana", "client")


@pytest.mark.parametrize(("name", "status"), [("ana", 403), ("olga", 200)])
def test_metrics_need_their_scope(client: TestClient, log_in: Any, name: str, status: int) -> None:
    """/metrics is for principals with `metrics:read`."""
    assert client.get("/metrics", headers=log_in(client, name)).status_code == status


def test_metrics_name_templates_not_paths(client: TestClient, log_in: Any) -> None:
    """A request is counted under its route's template, and under `unmatched` where there is none."""
    client.get("/livez")
    client.get("/some/invented/path")
    text = client.get("/metrics", headers=log_in(client, "olga")).text
    assert 'http_route="/livez"' in text
    assert 'http_route="unmatched"' in text
    assert "invented" not in text


def test_limit_headers(client: TestClient, bearer: dict[str, str], sample: bytes) -> None:
    """An answer of a limited route says what is left of the allowance."""
    answer = client.post("/predict-land-use", headers=bearer, files={"file": sample})
    assert answer.headers["RateLimit-Policy"] == '"predict";q=10000;w=60'
    assert answer.headers["RateLimit"].startswith('"predict";r=9999;t=')


def test_allowance_is_shared_by_the_routes(make_client: Any, settings: Any, log_in: Any, sample: bytes) -> None:
    """The prediction routes share one allowance a principal; over it the answer is 429 and is counted."""
    client = make_client(limits=settings.limits.model_copy(update={"predict": "3/minute"}))
    headers = log_in(client)
    routes = ("/predict-land-use", "/predict-land-use/", "/v1/predictions", "/v1/predictions")
    answers = [client.post(route, headers=headers, files={"file": sample}) for route in routes]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert answers[-1].json()["code"] == "rate_limited"
    assert int(answers[-1].headers["Retry-After"]) >= 1
    text = client.get("/metrics", headers=log_in(client, "olga")).text
    assert 'atalaya_rate_limited_total{limit="predict"} 1.0' in text


def test_documentation_pages(client: TestClient) -> None:
    """The OpenAPI document is served in development and absent in production."""
    assert "/v1/predictions" in client.get("/openapi.json").json()["paths"]


def test_no_documentation_in_production(make_client: Any) -> None:
    """In production the documentation pages do not exist."""
    client = make_client(environment=Environment.PRODUCTION)
    assert [client.get(path).status_code for path in ("/docs", "/openapi.json")] == [404, 404]
