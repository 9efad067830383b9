"""The route class of the prediction routes: what it adds to FastAPI's handler."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import Depends, FastAPI, HTTPException
from starlette.requests import Request
from starlette.testclient import TestClient

from api.routes.predictions import router

JPEG = {"Content-Type": "image/jpeg"}


def mount_again(client: TestClient, dependency: Any) -> None:
    """Mount the prediction routes a second time, below /again, with an additional dependency."""
    app: Any = client.app
    assert isinstance(app, FastAPI)
    app.include_router(router, prefix="/again", dependencies=[Depends(dependency)])


def read_ledger(client: TestClient, headers: dict[str, str]) -> list[tuple[int, str | None, int]]:
    entries = client.get("/v1/predictions", headers=headers).json()["entries"]
    return [(entry["status"], entry["code"], entry["count"]) for entry in entries]


@pytest.mark.parametrize("path", ["/v1/predictions", "/v1/predictions?top_k=1", "/predict-land-use"])
def test_dependencies_of_the_router_run(client: TestClient, bearer: dict[str, str], sample: bytes, path: str) -> None:
    """A dependency that is added to the router runs for every request, with or without parameters."""
    calls: list[str] = []

    async def note_call(request: Request) -> None:
        calls.append(request.url.path)

    mount_again(client, note_call)
    response = client.post(f"/again{path}", headers=bearer, files={"file": sample})
    assert response.status_code == 200
    assert calls == [f"/again{path.partition('?')[0]}"]


def test_a_rejection_by_a_dependency_is_recorded_once(
    client: TestClient, bearer: dict[str, str], sample: bytes
) -> None:
    """A known caller's request that a dependency rejects before the pipeline runs is recorded once."""

    async def refuse() -> None:
        raise HTTPException(400)

    mount_again(client, refuse)
    assert client.post("/again/v1/predictions", headers=bearer | JPEG, content=sample).status_code == 400
    assert client.post("/v1/predictions", headers=bearer | JPEG, content=sample).status_code == 200  # flushes refusals
    assert sorted(read_ledger(client, bearer), key=str) == [(200, None, 1), (400, "bad_request", 1)]


@pytest.mark.parametrize(
    ("path", "data", "status", "code"),
    [
        ("/v1/predictions", b"text", 415, "unsupported_image"),
        ("/v1/predictions?top_k=0", b"text", 422, "invalid_request"),
        ("/v1/predictions?dry_run=true", b"text", 415, "unsupported_image"),
        ("/predict-land-use", b"text", 415, "unsupported_body"),
    ],
)
def test_a_rejection_is_recorded_once(
    client: TestClient, bearer: dict[str, str], sample: bytes, path: str, data: bytes, status: int, code: str
) -> None:
    """A request that the route or the pipeline rejects has exactly one entry in the ledger."""
    assert client.post(path, headers=bearer | JPEG, content=data).status_code == status
    assert client.post("/v1/predictions", headers=bearer | JPEG, content=sample).status_code == 200  # flushes refusals
    assert sorted(read_ledger(client, bearer), key=str) == [(200, None, 1), (status, code, 1)]
