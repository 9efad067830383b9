"""Threat T38: no caller can slow the gateway down with requests other than predictions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import closing
from http.client import HTTPConnection, HTTPResponse

import httpx
import pytest

from tests.support.gateway import TIMEOUT_S, Gateway

READS = ("/v1/predictions?limit=200", "/v1/me", "/v1/keys", "/v1/usage")


@pytest.fixture
def gateway(new_gateway: Callable[..., Gateway]) -> Gateway:
    return new_gateway(MODEL__URL="stub://", WEB_CONCURRENCY="2", LIMITS__REQUESTS="20/hour")


def read_on_own_connections(gateway: Gateway, token: str, count: int) -> list[httpx.Response]:
    """Send `count` reads to several routes, each on its own connection so that both workers get some."""
    headers = {"Authorization": f"Bearer {token}"}
    return [gateway.get(READS[number % len(READS)], headers=headers) for number in range(count)]


def test_all_routes_of_a_principal_share_one_rate(gateway: Gateway) -> None:
    """T38: over all routes and workers a principal gets exactly LIMITS__REQUESTS responses; others are unaffected."""
    token = gateway.token()
    responses = read_on_own_connections(gateway, token, 30)
    assert Counter(response.status_code for response in responses) == {200: 20, 429: 10}
    rejected = responses[-1]
    assert rejected.json()["code"] == "rate_limited"
    assert rejected.headers["RateLimit-Policy"] == '"requests";q=20;w=3600'
    assert 3000 < int(rejected.headers["Retry-After"]) <= 3600
    assert gateway.client("olga").get("/v1/me").is_success
    assert gateway.metric('atalaya_rate_limited_total{limit="requests"}') == 10
    predicted = gateway.post("/v1/predictions", headers={"Authorization": f"Bearer {token}"})
    assert predicted.status_code == 422  # an empty image, but not limited by the other requests


@pytest.mark.parametrize("path", ["/auth/introspect", "/auth/revoke"])
def test_oauth_endpoints_are_limited_by_address(gateway: Gateway, path: str) -> None:
    """T38: an address gets LIMITS__REQUESTS responses from these endpoints, then errors in the form of RFC 6749."""
    responses = [gateway.post(path, data={"token": "x"}) for _ in range(22)]
    assert Counter(response.status_code for response in responses) == {401: 20, 429: 2}
    assert responses[-1].json()["error"] == "temporarily_unavailable"
    assert int(responses[-1].headers["Retry-After"]) > 0


@pytest.mark.parametrize(
    ("scope", "path", "headers", "status"),
    [
        ("predict", "/v1/predictions?top_k=0", {}, 422),
        ("predict", "/v1/predictions", {"X-Request-Timeout": "soon"}, 422),
        ("predict", "/v1/predictions", {"Content-Length": "90000000"}, 413),
        ("predictions:read", "/v1/predictions", {}, 403),
        ("predictions:read", "/v2/models/stub/infer", {}, 403),
    ],
)
def test_rejected_predictions_count(
    gateway: Gateway, scope: str, path: str, headers: dict[str, str], status: int
) -> None:
    """T38: a prediction that is rejected for any reason but overload counts towards the rate of its API key."""
    body = {"name": "limited", "scopes": [scope], "rate": "2/hour"}
    key = gateway.client("ana").post("/v1/keys", json=body).json()["key"]
    responses = [post_without_body(gateway, path, {"X-API-Key": key, **headers}) for _ in range(3)]
    assert [response.status for response in responses] == [status, status, 429]
    assert responses[-1].headers["RateLimit-Policy"].startswith('"key";q=2;w=3600')


def post_without_body(gateway: Gateway, path: str, headers: dict[str, str]) -> HTTPResponse:
    """Send only the head of a request, even if it declares a body."""
    with closing(HTTPConnection("127.0.0.1", gateway.port, timeout=TIMEOUT_S)) as connection:
        connection.request("POST", path, headers=headers)
        return connection.getresponse()
