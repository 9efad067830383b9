"""Past predictions over HTTP."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.commands.database import run_with_accounts
from api.settings import Settings
from auth.principal import Role
from tests.api.conftest import Bearers

Bearer = dict[str, str]
UNKNOWN = "01a2073c-bc9a-7019-bf0d-15032078e849"


def predict(client: TestClient, headers: Bearer, data: bytes) -> Any:
    return client.post("/v1/predictions", files={"file": data}, headers=headers)


@pytest.fixture
def bob(client: TestClient, settings: Settings, password: str, log_in: Any) -> Bearer:
    """Another client."""
    run_with_accounts(settings, lambda accounts: accounts.add("bob", Role.CLIENT, password))
    headers: Bearer = log_in(client, "bob")
    return headers


def test_a_prediction_can_be_read_again(client: TestClient, bearer: Bearer, sample: bytes) -> None:
    """A prediction is found by its id, with its exact probabilities and its position in the chain."""
    prediction = client.post("/v1/predictions?top_k=21", files={"file": sample}, headers=bearer).json()
    found = client.get(f"/v1/predictions/{prediction['id']}", headers=bearer).json()
    for name in ("id", "label", "confidence", "predictions", "model"):
        assert found[name] == prediction[name]
    assert found["image"] == prediction["image"]
    assert client.get(f"/v1/predictions/{prediction['id'].upper()}", headers=bearer).json() == found
    assert (found["status"], found["code"], found["count"], found["preprocessing"]) == (200, None, 1, "4")
    assert found["at"].endswith("Z")
    assert set(found["timing"]) == {"queue", "decode", "infer"}
    assert found["proof"]["seq"] == 1
    assert len(found["proof"]["hash"]) == 64


def test_predictions_of_the_original_route_are_recorded(client: TestClient, bearer: Bearer, sample: bytes) -> None:
    """The original route returns an id, under which the same probabilities are found."""
    prediction = client.post("/predict-land-use/", files={"file": sample}, headers=bearer).json()
    found = client.get(f"/v1/predictions/{prediction['id']}", headers=bearer).json()
    (probabilities,) = prediction["prediction_probability"]
    assert [row["probability"] for row in found["predictions"]] == sorted(probabilities, reverse=True)


def test_rejected_requests_are_listed(client: TestClient, bearer: Bearer, sample: bytes) -> None:
    """Rejected requests are listed with their code, without an image or a prediction."""
    assert predict(client, bearer, b"text").status_code == 415
    assert predict(client, bearer, b"").status_code == 422
    assert client.post("/v1/predictions?top_k=0", files={"file": sample}, headers=bearer).status_code == 422
    assert predict(client, bearer, sample).status_code == 200  # flushes the recorded refusals
    entries = client.get("/v1/predictions", headers=bearer).json()["entries"]
    assert {entry["code"] for entry in entries} == {None, "unsupported_image", "empty_image", "invalid_request"}
    for entry in entries:
        if entry["code"]:
            assert (entry["label"], entry["image"], entry["model"], entry["predictions"]) == (None, None, None, [])


def test_pages_are_stable(client: TestClient, bearer: Bearer, sample: bytes) -> None:
    """Following the cursor lists each prediction once, newest first, even while new ones are recorded."""
    ids = [predict(client, bearer, sample).json()["id"] for _ in range(5)]
    seen: list[str] = []
    cursor: str | None = None
    while True:
        query: dict[str, str | int] = {"limit": 2, **({"cursor": cursor} if cursor else {})}
        page = client.get("/v1/predictions", params=query, headers=bearer).json()
        seen += [entry["id"] for entry in page["entries"]]
        predict(client, bearer, sample)
        cursor = page["next"]
        if cursor is None:
            break
    assert seen == ids[::-1]


def test_callers_see_only_their_own_predictions(client: TestClient, bearer: Bearer, bob: Bearer, sample: bytes) -> None:
    """Another user's prediction is neither found nor listed; a user's API key sees the user's."""
    prediction = predict(client, bearer, sample).json()["id"]
    for unknown in (prediction, UNKNOWN, "x", "%00"):
        response = client.get(f"/v1/predictions/{unknown}", headers=bob)
        assert (response.status_code, response.json()["code"]) == (404, "prediction_not_found")
    assert client.get("/v1/predictions", headers=bob).json() == {"entries": [], "next": None}
    body = {"name": "reader", "scopes": ["predictions:read"]}
    key = {"X-API-Key": client.post("/v1/keys", json=body, headers=bearer).json()["key"]}
    assert client.get(f"/v1/predictions/{prediction}", headers=key).status_code == 200


def test_the_scope_is_required(client: TestClient, log_in: Any) -> None:
    """Without a token the response is 401, without the scope 403."""
    assert client.get("/v1/predictions").status_code == 401
    narrow = log_in(client, "ana", "predict")
    assert client.get("/v1/predictions", headers=narrow).status_code == 403


@pytest.mark.parametrize("query", ["limit=0", "limit=201", "cursor=x", "cursor=' OR 1=1"])
def test_malformed_queries_are_rejected(shared_client: TestClient, shared_bearers: Bearers, query: str) -> None:
    """Invalid limits and cursors are rejected with 422."""
    assert shared_client.get(f"/v1/predictions?{query}", headers=shared_bearers["ana"]).status_code == 422


def test_an_unavailable_ledger_is_a_503(client: TestClient, bearer: Bearer, settings: Settings) -> None:
    """While the ledger cannot be read the response is a 503 with `Retry-After`."""
    path = settings.database_url.get_secret_value().removeprefix("sqlite:///")
    with sqlite3.connect(path) as connection:
        connection.execute("ALTER TABLE ledger_payloads RENAME TO away")
    connection.close()
    response = client.get("/v1/predictions", headers=bearer)
    assert (response.status_code, response.json()["code"]) == (503, "ledger_unavailable")
    assert int(response.headers["Retry-After"]) >= 1
