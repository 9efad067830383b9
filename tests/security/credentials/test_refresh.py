"""Threat T7: refresh requests that must be rejected, on a running gateway."""

from __future__ import annotations

import json
from collections import Counter

import httpx
import pytest

from tests.support.gateway import Gateway
from tests.support.polling import wait_until


def refresh(gateway: Gateway, token: str, **more: str) -> httpx.Response:
    return gateway.post("/auth/token", data={"grant_type": "refresh_token", "refresh_token": token, **more})


def count_token_events(gateway: Gateway) -> Counter[tuple[str, str]]:
    """Count the token requests in the audit log by outcome and, for rejections, by error code."""
    counts = Counter[tuple[str, str]]()
    for entry in map(json.loads, gateway.run("audit", "--event", "token", "--export", "-").stdout.splitlines()):
        counts[entry["outcome"], entry["detail"].get("code", "")] += entry["count"]
    return counts


@pytest.mark.parametrize(
    ("refused", "error"),
    [
        ({"scope": "predict users:admin"}, "invalid_scope"),
        ({"scope": "nonsense"}, "invalid_scope"),
        ({"client_id": "00000000-0000-4000-8000-000000000000", "client_secret": "x"}, "invalid_client"),
    ],
)
def test_a_rejected_refresh_leaves_the_token_usable(gateway: Gateway, refused: dict[str, str], error: str) -> None:
    """T7: a rejected scope or client does not count as theft: the refresh token and its session remain usable."""
    token = gateway.log_in().json()["refresh_token"]
    response = refresh(gateway, token, **refused)
    assert (response.status_code, response.json()["error"]) == (401 if error == "invalid_client" else 400, error)
    renewed = refresh(gateway, token)
    assert renewed.status_code == 200
    headers = {"Authorization": f"Bearer {renewed.json()['access_token']}"}
    assert gateway.get("/v1/me", headers=headers).status_code == 200
    assert refresh(gateway, renewed.json()["refresh_token"], scope="predict").json()["scope"] == "predict"


def test_the_audit_log_tells_a_rejection_from_a_theft(gateway: Gateway) -> None:
    """T7: a rejected scope is recorded as refused, the exchange after it as issued, and only a second use as reused."""
    before = count_token_events(gateway)
    token = gateway.log_in().json()["refresh_token"]
    statuses = [refresh(gateway, token, **more).status_code for more in ({"scope": "users:admin"}, {}, {})]
    assert statuses == [400, 200, 400]
    expected = Counter(
        {("issued", ""): 2, ("refused", "invalid_scope"): 1, ("reused", ""): 1, ("refused", "invalid_grant"): 1}
    )
    # Refusals are written with a delay, those of earlier tests too.
    wait_until(lambda: count_token_events(gateway) - before >= expected)
    added = count_token_events(gateway) - before
    assert (added["issued", ""], added["reused", ""]) == (2, 1)
