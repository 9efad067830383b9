"""Requests that cannot be recorded in the audit log change nothing, and can be repeated."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from api.commands.database import run_with_accounts
from api.settings import Settings
from auth.principal import Role
from auth.tokens.access import FIRST_PARTY

UNAVAILABLE = 503, "audit_unavailable"


def rename_table(folder: Path, old: str, new: str) -> None:
    with closing(sqlite3.connect(folder / "gateway.db")) as connection, connection:
        connection.execute(f"ALTER TABLE {old} RENAME TO {new}")


@contextmanager
def unwritable_log(folder: Path) -> Iterator[None]:
    rename_table(folder, "audit_events", "elsewhere")
    yield
    rename_table(folder, "elsewhere", "audit_events")


def read_problem(response: Any) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


def test_a_refresh_can_be_repeated(client: TestClient, tmp_path: Path, password: str) -> None:
    """A refresh or revocation that cannot be recorded neither consumes the token nor ends the session."""
    tokens = client.post("/auth/token", data={"grant_type": "password", "username": "ana", "password": password}).json()
    form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    with unwritable_log(tmp_path):
        assert client.post("/auth/token", data=form).status_code == 503
        assert client.post("/auth/token", data=form).status_code == 503
    assert client.post("/auth/token", data=form).status_code == 200
    with unwritable_log(tmp_path):
        revoked = client.post("/auth/revoke", data={"token": tokens["access_token"], "client_id": FIRST_PARTY})
    assert revoked.status_code == 503
    assert client.get("/v1/me", headers={"Authorization": f"Bearer {tokens['access_token']}"}).status_code == 200


def test_a_key_stays_as_it_is(client: TestClient, tmp_path: Path, bearer: dict[str, str]) -> None:
    """Keys are neither created, rotated nor revoked while the audit log cannot be written."""
    created = client.post("/v1/keys", headers=bearer, json={"name": "camera"}).json()
    path = f"/v1/keys/{created['id']}"
    with unwritable_log(tmp_path):
        for refused in (
            client.post("/v1/keys", headers=bearer, json={"name": "other"}),
            client.post(f"{path}/rotate", headers=bearer, json={"overlap_hours": 0}),
            client.delete(path, headers=bearer),
        ):
            assert read_problem(refused) == UNAVAILABLE
    assert [key["id"] for key in client.get("/v1/keys", headers=bearer).json()] == [created["id"]]
    assert client.get("/v1/me", headers={"X-API-Key": created["key"]}).status_code == 200
    assert client.post(f"{path}/rotate", headers=bearer).status_code == 200


def test_a_user_stays_as_it_is(settings: Settings, make_client: Any, log_in: Any, tmp_path: Path) -> None:
    """Users are neither created, changed nor deleted while the audit log cannot be written; later requests succeed."""
    run_with_accounts(settings, lambda accounts: accounts.add("adam", Role.ADMIN, "correct horse battery"))
    client = make_client()
    admin = log_in(client, "adam")
    listed = client.get("/v1/users", headers=admin).json()
    path = f"/v1/users/{next(user['id'] for user in listed if user['name'] == 'ana')}"
    body = {"name": "bob", "role": "client", "password": "walnut ferry quiet lamp"}
    with unwritable_log(tmp_path):
        for refused in (
            client.post("/v1/users", headers=admin, json=body),
            client.patch(path, headers=admin, json={"role": "operator"}),
            client.delete(path, headers=admin),
        ):
            assert read_problem(refused) == UNAVAILABLE
    assert client.get("/v1/users", headers=admin).json() == listed
    assert client.patch(path, headers=admin, json={"role": "operator"}).json()["role"] == "operator"
    assert client.delete(path, headers=admin).status_code == 204


def test_an_own_account_stays_as_it_is(
    client: TestClient, tmp_path: Path, bearer: dict[str, str], password: str
) -> None:
    """A user's password and consent to keeping images do not change while the audit log cannot be written."""
    with unwritable_log(tmp_path):
        change = {"current_password": password, "new_password": "walnut ferry quiet lamp"}
        assert read_problem(client.post("/v1/me/password", headers=bearer, json=change)) == UNAVAILABLE
        assert read_problem(client.put("/v1/me/images", headers=bearer, json={"keep": True})) == UNAVAILABLE
    assert client.get("/v1/me/images", headers=bearer).json()["keep"] is False
    assert client.post("/v1/me/password", headers=bearer, json=change).status_code == 204
