"""Threats T19 and T21 for past predictions, on a running gateway."""

from __future__ import annotations

import httpx
import pytest

from tests.security.authorization.predictions import NEVER_ISSUED, comparable, predict
from tests.support.gateway import TIMEOUT_S, Gateway


@pytest.fixture(scope="module")
def cleo(gateway: Gateway) -> httpx.Client:
    """A second user with the role of `ana`."""
    gateway.add_user("cleo")
    return gateway.client("cleo")


def test_another_users_prediction_is_not_found(gateway: Gateway, cleo: httpx.Client) -> None:
    """T19: another owner's prediction gets the same 404 as one that never existed, by token and by key."""
    owner = gateway.client()
    prediction_id = predict(owner)
    key = {"X-API-Key": cleo.post("/v1/keys", json={"name": "look", "scopes": ["predictions:read"]}).json()["key"]}
    with httpx.Client(base_url=gateway.base_url, headers=key, timeout=TIMEOUT_S) as by_key:
        for stranger in (cleo, by_key):
            others, never = (stranger.get(f"/v1/predictions/{wanted}") for wanted in (prediction_id, NEVER_ISSUED))
            assert (others.status_code, others.json()["code"]) == (404, "prediction_not_found")
            assert comparable(others) == comparable(never)
            assert prediction_id not in others.text
    assert owner.get(f"/v1/predictions/{prediction_id}").status_code == 200


def test_a_list_holds_only_the_callers_predictions(gateway: Gateway, cleo: httpx.Client) -> None:
    """T19: the list shows no other owner's predictions on any page, not even with another owner's cursor."""
    owner = gateway.client()
    others = {predict(owner) for _ in range(2)}
    own = predict(cleo)
    others.add(predict(owner))
    for query in ({}, {"limit": 1}, {"cursor": max(others)}):
        listed = {entry["id"] for entry in cleo.get("/v1/predictions", params=query).json()["entries"]}
        assert own in listed
        assert not listed & others


def test_a_role_without_the_scope_reads_no_prediction(gateway: Gateway) -> None:
    """T21: an operator, who lacks the scope to read predictions, gets a 403 for a prediction and for the list."""
    prediction_id = predict(gateway.client())
    for path in (f"/v1/predictions/{prediction_id}", "/v1/predictions"):
        response = gateway.client("olga").get(path)
        assert (response.status_code, response.json()["code"]) == (403, "insufficient_scope")


@pytest.mark.parametrize(
    "wanted", ["%2e%2e%2fetc", "' OR '1'='1", "x" * 4000, NEVER_ISSUED.upper(), f"{NEVER_ISSUED}%0a", "%ff"]
)
def test_a_malformed_id_is_not_found(gateway: Gateway, wanted: str) -> None:
    """T19: a malformed id gets a 404 with a problem document, and causes no server error."""
    response = gateway.client().get(f"/v1/predictions/{wanted}")
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"
