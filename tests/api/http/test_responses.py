"""Properties of all responses, and the small routes."""

from __future__ import annotations

import tracemalloc
from http import HTTPStatus
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.http.problems import problem
from api.prediction.admission import MAX_BODY_BYTES
from api.settings import Environment
from tests.support.polling import wait_until
from tests.support.servers.sentry import KeepingReporter


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [("GET", "/nowhere", 404, "not_found"), ("DELETE", "/v1/predictions", 405, "method_not_allowed")],
)
def test_unknown_paths_and_methods(client: TestClient, method: str, path: str, status: int, code: str) -> None:
    """A request for an unknown path or with an unsupported method gets a problem document."""
    response = client.request(method, path)
    assert response.status_code == status
    assert response.json() == {
        "type": f"urn:atalaya:problem:{code}",
        "title": response.json()["title"],
        "status": status,
        "detail": response.json()["detail"],
        "code": code,
        "request_id": response.headers["X-Request-ID"],
    }


@pytest.mark.parametrize("path", ["/livez", "/nowhere", "/v1/me"])
def test_security_headers(client: TestClient, path: str) -> None:
    """Every response forbids content sniffing, framing and caching."""
    headers = client.get(path).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["Cache-Control"] == "no-store"


def test_production_requires_https(make_client: Any) -> None:
    """In production, responses tell browsers to use HTTPS."""
    response = make_client(environment=Environment.PRODUCTION).get("/livez")
    assert response.headers["Strict-Transport-Security"].startswith("max-age=")


def test_request_id_is_kept(client: TestClient) -> None:
    """A request id that is safe to log is returned unchanged."""
    assert client.get("/livez", headers={"X-Request-ID": "trace-0123456789"}).headers["X-Request-ID"] == (
        "trace-0123456789"
    )


@pytest.mark.parametrize("request_id", ["short", "x" * 65, 'a"b{}c: d', "ünïcödé-id".encode().decode("latin-1")])
def test_unsafe_request_id_is_replaced(client: TestClient, request_id: str) -> None:
    """A request id that is not safe to log is replaced."""
    response = client.get("/livez", headers={b"X-Request-ID": request_id.encode("latin-1")})
    assert response.headers["X-Request-ID"] != request_id


def test_announced_body_over_the_limit(client: TestClient, bearer: dict[str, str]) -> None:
    """A body with a Content-Length over the limit is rejected before it is read."""
    headers = {**bearer, "Content-Type": "image/jpeg", "Content-Length": str(MAX_BODY_BYTES + 1)}
    response = client.post("/v1/predictions", headers=headers, content=b"x")
    assert (response.status_code, response.json()["code"]) == (413, "body_too_large")
    assert response.headers["X-Request-ID"] == response.json()["request_id"]


@pytest.mark.parametrize("path", ["/v1/predictions", "/v1/keys", "/v2/models/stub/infer"])
def test_a_content_length_of_thousands_of_digits(client: TestClient, bearer: dict[str, str], path: str) -> None:
    """Leading zeros in a Content-Length are ignored; a number with too many digits for int() is over the limit."""
    for length, statuses in (("0" * 4_400 + "5", {400, 415, 422}), ("9" * 4_400, {413})):
        headers = {**bearer, "Content-Type": "application/octet-stream", "Content-Length": length}
        assert client.post(path, headers=headers, content=b"12345").status_code in statuses


def test_a_long_detail_is_not_kept() -> None:
    """A problem document with a long detail, which may come from the client, is not kept in memory."""
    tracemalloc.start()
    try:
        for number in range(5):
            problem(HTTPStatus.BAD_REQUEST, "bad_request", str(number) * 1_000_000, "request-1")
        assert tracemalloc.get_traced_memory()[0] < 1_000_000
    finally:
        tracemalloc.stop()


def test_streamed_body_over_the_limit(client: TestClient, bearer: dict[str, str]) -> None:
    """A body without a Content-Length is rejected once it exceeds the limit."""
    chunk = bytes(1024 * 1024)
    chunks = MAX_BODY_BYTES // len(chunk) + 2
    response = client.post(
        "/v1/predictions",
        headers={**bearer, "Content-Type": "image/jpeg"},
        content=(chunk for _ in range(chunks)),
    )
    assert (response.status_code, response.json()["code"]) == (413, "body_too_large")


def test_unexpected_error(make_client: Any) -> None:
    """An unexpected error is answered with a 500 that does not reveal the cause, and reported with the request id."""
    reporter = KeepingReporter()
    client = make_client(raise_errors=False, reporter=reporter)

    async def fail() -> None:
        raise ZeroDivisionError("the secret cause")

    client.app.add_api_route("/fail", fail)
    response = client.get("/fail")
    assert (response.status_code, response.json()["code"]) == (500, "internal_error")
    assert "secret" not in response.text
    ((error, tags, principal),) = reporter.captured
    assert isinstance(error, ZeroDivisionError)
    assert tags == {"request_id": response.headers["X-Request-ID"], "route": "/fail"}
    assert principal is None


def test_readiness_names_its_checks(client: TestClient) -> None:
    """/readyz returns the state of each dependency."""
    ready = {"status": "ready", "checks": {"database": "ok", "ledger": "ok", "model": "ok"}}

    def respond() -> tuple[int, Any]:
        response = client.get("/readyz")
        return response.status_code, response.json()

    wait_until(lambda: respond() == (200, ready), message=respond)  # on a busy machine a check may take too long


def test_me(client: TestClient, bearer: dict[str, str]) -> None:
    """/v1/me returns the caller's name and role."""
    body = client.get("/v1/me", headers=bearer).json()
    assert (body["name"], body["role"]) == ("ana", "client")


@pytest.mark.parametrize(("name", "status"), [("ana", 403), ("olga", 200)])
def test_metrics_need_their_scope(client: TestClient, log_in: Any, name: str, status: int) -> None:
    """/metrics requires the scope `metrics:read`."""
    assert client.get("/metrics", headers=log_in(client, name)).status_code == status


def test_metrics_contain_route_templates(client: TestClient, log_in: Any) -> None:
    """A request is counted under its route's template or, if no route matches, under `unmatched`."""
    client.get("/livez")
    client.get("/some/invented/path")
    text = client.get("/metrics", headers=log_in(client, "olga")).text
    assert 'http_route="/livez"' in text
    assert 'http_route="unmatched"' in text
    assert "invented" not in text


def test_limit_headers(client: TestClient, bearer: dict[str, str], sample: bytes) -> None:
    """A response of a rate-limited route contains the limit and the number of remaining requests."""
    response = client.post("/predict-land-use", headers=bearer, files={"file": sample})
    assert response.headers["RateLimit-Policy"] == '"predict";q=10000;w=60'
    assert response.headers["RateLimit"].startswith('"predict";r=9999;t=')


def test_routes_share_the_rate_limit(make_client: Any, settings: Any, log_in: Any, sample: bytes) -> None:
    """The prediction routes share one limit for each principal; a request over it gets 429 and is counted."""
    client = make_client(limits=settings.limits.model_copy(update={"predict": "3/hour"}))
    headers = log_in(client)
    routes = ("/predict-land-use", "/predict-land-use/", "/v1/predictions", "/v1/predictions")
    responses = [client.post(route, headers=headers, files={"file": sample}) for route in routes]
    assert [response.status_code for response in responses] == [200, 200, 200, 429]
    assert responses[-1].json()["code"] == "rate_limited"
    assert int(responses[-1].headers["Retry-After"]) >= 1
    text = client.get("/metrics", headers=log_in(client, "olga")).text
    assert 'atalaya_rate_limited_total{limit="predict"} 1.0' in text


def test_documentation_pages(client: TestClient, log_in: Any) -> None:
    """The OpenAPI document is served in development, and metrics name its route."""
    assert "/v1/predictions" in client.get("/openapi.json").json()["paths"]
    route = 'http_request_method="GET",http_response_status_code="200",http_route="/openapi.json"'
    assert route in client.get("/metrics", headers=log_in(client, "olga")).text


def test_no_documentation_in_production(make_client: Any) -> None:
    """In production the documentation pages do not exist."""
    client = make_client(environment=Environment.PRODUCTION)
    assert [client.get(path).status_code for path in ("/docs", "/openapi.json")] == [404, 404]


def test_a_problem_document_lists_the_first_ten_problems(client: TestClient, bearer: dict[str, str]) -> None:
    """The response to a body with thousands of unknown fields lists ten problems and says how many there are."""
    body = {"name": "tiles", **{f"x{number}": 1 for number in range(5000)}}
    response = client.post("/v1/keys", json=body, headers=bearer)
    document = response.json()
    assert (response.status_code, document["code"], len(document["errors"])) == (422, "invalid_request", 10)
    assert "There are 5000 problems" in document["detail"]


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("application/json", "application/json"),
        ("Application/JSON", "application/json"),
        ("application/*", "application/json"),
        ("text/html;q=0.5, application/json", "application/json"),
        ("application/json, text/plain, */*", "application/json"),
        ("text/html;q=0, */*", "application/json"),
        ("application/json;q=0, */*", "text/html"),
        ("application/json;q=0.5, text/html", "text/html"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "text/html"),
        ("*/*", "text/html"),
    ],
)
def test_the_start_page_is_negotiated(client: TestClient, accept: str, media_type: str) -> None:
    """The start page is HTML or JSON, whichever the client prefers, and HTML if it prefers neither."""
    response = client.get("/", headers={"Accept": accept})
    assert response.headers["content-type"].partition(";")[0] == media_type
    assert response.headers["vary"] == "Accept"


@pytest.mark.parametrize("media_type", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_a_body_that_is_not_declared_as_json(
    client: TestClient, bearer: dict[str, str], media_type: str | None
) -> None:
    """A JSON document without its media type gets 415, with the header to send."""
    headers = bearer if media_type is None else {**bearer, "Content-Type": media_type}
    response = client.post("/v1/keys", headers=headers, content=b'{"name": "a"}')
    assert (response.status_code, response.json()["code"]) == (415, "unsupported_body")
    assert response.json()["detail"] == "Send the body as JSON, with `Content-Type: application/json`."
    assert client.post("/v1/keys", headers=bearer).json()["code"] == "invalid_request"


def test_a_wrong_host_under_v2_has_the_error_of_the_protocol(client: TestClient) -> None:
    """A request for a host that is not served gets the member `error` where the inference protocol requires it."""
    body = client.get("/v2", headers={"Host": "evil.example"}).json()
    assert (body["code"], body["error"]) == ("host_not_allowed", body["detail"])
