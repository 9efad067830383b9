"""Threat T38: no caller can slow the gateway down with requests other than predictions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import httpx
import pytest

from tests.support.gateway import Gateway

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
