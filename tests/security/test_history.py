"""Line 19 for past predictions, on a running gateway."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

PASSWORD = "correct horse battery"
SAMPLE = Path(__file__).parents[2] / "samples" / "yellowstone_forest.jpg"
NEVER = "01a2073c-bc9a-7019-bf0d-15032078e849"


@pytest.fixture
def cleo(gateway: Any) -> httpx.Client:
    """Another client beside `ana`."""
    added = gateway.run("users", "add", "cleo", "--role", "client", "--password-stdin", stdin=PASSWORD)
    assert added.returncode == 0 or "already" in added.stderr
    return gateway.client("cleo")


def predict(client: httpx.Client) -> str:
    answer = client.post("/v1/predictions", files={"file": SAMPLE.read_bytes()})
    assert answer.status_code == 200, answer.text
    prediction_id: str = answer.json()["id"]
    return prediction_id


def comparable(answer: httpx.Response) -> dict[str, Any]:
    """All of a refusal but what differs in every answer."""
    return {**answer.json(), "request_id": ""}


def test_line_19_another_s_prediction_is_not_found(gateway: Any, cleo: httpx.Client) -> None:
    """Another owner's prediction is the very 404 of one that never was, by token and by key, and stays its owner's."""
    owner = gateway.client()
    prediction_id = predict(owner)
    key = {"X-API-Key": cleo.post("/v1/keys", json={"name": "look", "scopes": ["predictions:read"]}).json()["key"]}
    with httpx.Client(base_url=gateway.base_url, headers=key) as by_key:
        for stranger in (cleo, by_key):
            others, never = (stranger.get(f"/v1/predictions/{wanted}") for wanted in (prediction_id, NEVER))
            assert (others.status_code, others.json()["code"]) == (404, "prediction_not_found")
            assert comparable(others) == comparable(never)
            assert prediction_id not in others.text
    assert owner.get(f"/v1/predictions/{prediction_id}").status_code == 200


def test_line_19_a_list_holds_only_ones_own(gateway: Any, cleo: httpx.Client) -> None:
    """No page and no cursor, were it another's id, shows what others asked for."""
    owner = gateway.client()
    others = {predict(owner) for _ in range(2)}
    own = predict(cleo)
    others.add(predict(owner))
    for query in ({}, {"limit": 1}, {"cursor": max(others)}):
        listed = {entry["id"] for entry in cleo.get("/v1/predictions", params=query).json()["entries"]}
        assert own in listed
        assert not listed & others


def test_line_21_a_role_without_the_scope_reads_none(gateway: Any) -> None:
    """Who runs the gateway has no scope to read what its users asked for: 403 before any id is looked at."""
    prediction_id = predict(gateway.client())
    for path in (f"/v1/predictions/{prediction_id}", "/v1/predictions"):
        answer = gateway.client("olga").get(path)
        assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope")


@pytest.mark.parametrize("wanted", ["%2e%2e%2fetc", "' OR '1'='1", "x" * 4000, NEVER.upper(), f"{NEVER}%0a", "%ff"])
def test_line_19_what_is_no_id_is_not_found(gateway: Any, wanted: str) -> None:
    """What cannot be an id is a 404 with a problem document, never an error."""
    answer = gateway.client().get(f"/v1/predictions/{wanted}")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
