"""Paginated lists of users and API keys."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.commands.database import run_with_accounts
from api.settings import Settings
from auth.principal import Role
from tests.api.conftest import Bearers
from tests.support.gateway import PASSWORD

Headers = dict[str, str]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Settings of a gateway with the administrator `root`."""
    run_with_accounts(settings, lambda accounts: accounts.add("root", Role.ADMIN, PASSWORD))
    return settings


def read_pages(client: TestClient, path: str, headers: Headers) -> Iterator[list[dict[str, Any]]]:
    """Yield the page at `path` and the pages that its links lead to."""
    following: str | None = path
    while following:
        response = client.get(following, headers=headers)
        assert response.status_code == 200, response.text
        yield response.json()
        following = response.links.get("next", {}).get("url")


@pytest.mark.parametrize("limit", [1, 2, 3, 1000])
def test_users_come_in_pages(client: TestClient, log_in: Any, limit: int) -> None:
    """Pages have at most `limit` users and together list each user once, ordered by name."""
    pages = list(read_pages(client, f"/v1/users?limit={limit}", log_in(client, "root")))
    assert [user["name"] for page in pages for user in page] == ["ana", "olga", "root"]
    assert [len(page) for page in pages[:-1]] == [limit] * (len(pages) - 1)


@pytest.mark.parametrize("limit", [1, 2, 5, 1000])
def test_keys_come_in_pages(client: TestClient, log_in: Any, limit: int) -> None:
    """Pages have at most `limit` keys and together list each once, oldest first; the links keep the owner's id."""
    bearer, root = log_in(client), log_in(client, "root")
    created = [client.post("/v1/keys", headers=bearer, json={"name": str(n)}).json() for n in range(5)]
    owner = created[0]["user_id"]
    for path, headers in ((f"/v1/keys?limit={limit}", bearer), (f"/v1/keys?user={owner}&limit={limit}", root)):
        pages = list(read_pages(client, path, headers))
        assert [key["id"] for page in pages for key in page] == [key["id"] for key in created]
        assert [len(page) for page in pages[:-1]] == [limit] * (len(pages) - 1)


@pytest.mark.parametrize("path", ["users?limit=0", "users?limit=1001", "users?cursor=%00", "keys?limit=0"])
def test_invalid_pages_are_rejected(shared_client: TestClient, shared_bearers: Bearers, path: str) -> None:
    """A limit outside of 1 to 1000, or a cursor that is not a name, gets 422."""
    assert shared_client.get(f"/v1/{path}", headers=shared_bearers["root"]).status_code == 422


@pytest.mark.parametrize("cursor", ["0123456789abcdef", "%00", "x"])
def test_an_unknown_key_is_no_cursor(shared_client: TestClient, shared_bearers: Bearers, cursor: str) -> None:
    """A cursor that is not the id of a key gets 404."""
    response = shared_client.get(f"/v1/keys?cursor={cursor}", headers=shared_bearers["ana"])
    assert (response.status_code, response.json()["code"]) == (404, "key_not_found")


def test_another_owner_s_key_is_no_cursor(client: TestClient, bearer: Headers, log_in: Any) -> None:
    """Another owner's key as a cursor gets the same 404 as one that does not exist."""
    key = client.post("/v1/keys", headers=bearer, json={"name": "mine"}).json()
    response = client.get(f"/v1/keys?cursor={key['id']}", headers=log_in(client, "root"))
    assert (response.status_code, response.json()["code"]) == (404, "key_not_found")
