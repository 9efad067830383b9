"""Predictions of users, and how responses about other users' predictions are compared."""

from __future__ import annotations

from typing import Any

import httpx

from tests.support.paths import FOREST

NEVER_ISSUED = "01a2073c-bc9a-7019-bf0d-15032078e849"


def predict(client: httpx.Client) -> str:
    """Return the id of a new prediction."""
    response = client.post("/v1/predictions", files={"file": FOREST.read_bytes()})
    assert response.status_code == 200, response.text
    prediction_id: str = response.json()["id"]
    return prediction_id


def comparable(response: httpx.Response) -> dict[str, Any]:
    """A problem document without its request id, which always differs."""
    return {**response.json(), "request_id": ""}
