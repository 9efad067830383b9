"""Direct dispatch of the prediction routes: its responses equal those of FastAPI's dispatch."""

from __future__ import annotations

import re
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.support.paths import FOREST

ROUTES = ("/predict-land-use", "/predict-land-use/", "/v1/predictions")
UNUSED = "?unused=1"  # FastAPI dispatches a request with a query string
_VARYING = re.compile(r'"(id|request_id)":"[^"]*"|"timing":\{[^}]*\}|r=\d+|t=\d+')


def describe(response: Any) -> tuple[int, dict[str, str], str]:
    """Status, headers and body, without the values that vary between equal requests."""
    omitted = ("x-request-id", "content-length")
    headers = {name: _VARYING.sub("", value) for name, value in response.headers.items() if name not in omitted}
    return response.status_code, headers, _VARYING.sub("", response.text)


CASES: list[tuple[str, dict[str, Any]]] = [
    ("ana", {"files": {"file": FOREST.read_bytes()}}),
    ("ana", {"files": {"file": b"text"}}),
    ("ana", {"files": {"image": b"text"}}),
    ("ana", {"json": {}}),
    ("ana", {"headers": {"Content-Encoding": "gzip"}, "files": {"file": b"text"}}),
    ("ana", {"headers": {"Content-Length": "99999999999"}, "content": b"x"}),
    ("ana", {"headers": {"Accept": "image/png"}, "files": {"file": FOREST.read_bytes()}}),
    ("olga", {"files": {"file": FOREST.read_bytes()}}),
    ("nobody", {"files": {"file": FOREST.read_bytes()}}),
    ("", {"files": {"file": FOREST.read_bytes()}}),
]


@pytest.mark.parametrize("route", ROUTES)
def test_requests_with_and_without_parameters(client: TestClient, log_in: Any, route: str) -> None:
    """A request without parameters gets the same status, headers and body as one that FastAPI resolves."""
    credentials = {user: log_in(client, user) for user in ("ana", "olga")}
    credentials |= {"nobody": {"Authorization": "Bearer x"}, "": {}}
    statuses = set()
    for user, options in CASES:
        sent = {**options, "headers": {**options.get("headers", {}), **credentials[user]}}
        direct = client.post(route, **sent)
        assert describe(direct) == describe(client.post(route + UNUSED, **sent))
        statuses.add(direct.status_code)
    assert statuses >= {200, 401, 403, 413, 415, 422}


def test_rate_limit_without_parameters(make_client: Any, settings: Any, log_in: Any, sample: bytes) -> None:
    """Requests with and without parameters count towards one limit, and get 429 with the same headers."""
    client = make_client(limits=settings.limits.model_copy(update={"predict": "2/hour"}))
    sent = {"headers": log_in(client), "files": {"file": sample}}
    statuses = [client.post("/v1/predictions" + query, **sent).status_code for query in ("", UNUSED)]
    assert statuses == [200, 200]
    direct, resolved = (client.post("/v1/predictions" + query, **sent) for query in ("", UNUSED))
    assert direct.status_code == 429
    assert int(direct.headers["Retry-After"]) > 0
    for response in (direct, resolved):
        del response.headers["Retry-After"]
    assert describe(direct) == describe(resolved)


def test_a_header_parameter_is_validated(client: TestClient, bearer: dict[str, str], sample: bytes) -> None:
    """X-Request-Timeout is validated although the request has no query string."""
    for value, status in (("30", 200), ("0", 422), ("soon", 422)):
        headers = {**bearer, "X-Request-Timeout": value}
        assert [client.post(route, headers=headers, files={"file": sample}).status_code for route in ROUTES] == [
            status
        ] * len(ROUTES)


def test_other_methods(client: TestClient, bearer: dict[str, str]) -> None:
    """A method that no route of the path has gets 405, and GET returns the caller's history."""
    assert [client.put(route, headers=bearer).status_code for route in ROUTES] == [405] * len(ROUTES)
    assert client.get("/v1/predictions", headers=bearer).json()["entries"] == []


def test_metrics_name_the_route(client: TestClient, log_in: Any, sample: bytes) -> None:
    """The metrics count a request without parameters under the template of its route."""
    for route in ROUTES:
        client.post(route, headers=log_in(client), files={"file": sample})
    text = client.get("/metrics", headers=log_in(client, "olga")).text
    counted = r'http_server_request_duration_seconds_count{.*http_route="(/v1/pred.*?|/predict.*?)"'
    assert sorted(re.findall(counted, text)) == sorted(ROUTES)
