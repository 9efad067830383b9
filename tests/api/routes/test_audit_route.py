"""The audit log over HTTP: what is recorded, who may read it, and what happens when it cannot be written."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.commands.database import run_with_engine
from api.settings import Settings
from auth.clients import ClientStore
from auth.principal import Scope
from tests.api.conftest import Bearers, MakeClient
from tests.support.polling import wait_until

LogIn = Callable[..., dict[str, str]]


def entries(client: TestClient, headers: dict[str, str], **query: str | int) -> list[dict[str, Any]]:
    response = client.get("/v1/audit", headers=headers, params=query)
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()["entries"]
    return found


def wait_for_entries(client: TestClient, headers: dict[str, str], **query: str | int) -> list[dict[str, Any]]:
    """Poll until there are entries: rejected requests are recorded in the background."""
    wait_until(lambda: entries(client, headers, **query))
    return entries(client, headers, **query)


def execute(tmp_path: Path, statement: str) -> None:
    with sqlite3.connect(tmp_path / "gateway.db") as connection:
        connection.execute(statement)
    connection.close()


def test_a_login_is_recorded_before_its_response(client: TestClient, operator: dict[str, str]) -> None:
    """The issue of a token is recorded with subject, address, request and grant before the token is returned."""
    (entry,) = entries(client, operator, event="token", outcome="issued", limit=1)
    assert entry["actor"] == client.get("/v1/me", headers=operator).json()["subject"]
    assert entry["detail"]["grant"] == "password"
    assert entry["address"]
    assert entry["request_id"]
    assert (entry["count"], len(entry["hash"])) == (1, 64)


@pytest.mark.parametrize(
    ("headers", "outcome"),
    [({}, "missing"), ({"Authorization": "Bearer x"}, "invalid"), ({"X-API-Key": "atl_x_y"}, "invalid")],
)
def test_an_unauthenticated_request_is_recorded(
    client: TestClient, operator: dict[str, str], headers: dict[str, str], outcome: str
) -> None:
    """A request without valid credentials is recorded, without the credentials that were sent."""
    assert client.get("/v1/me", headers=headers).status_code == 401
    (entry,) = wait_for_entries(client, operator, event="access", outcome=outcome)
    assert (entry["actor"], entry["detail"]) == ("", {})


def test_a_request_over_a_rate_limit_is_recorded(make_client: MakeClient, settings: Settings, log_in: LogIn) -> None:
    """A request that a rate limit rejects is recorded, with the name of the limit."""
    client = make_client(limits=settings.limits.model_copy(update={"token": "1/hour"}))
    operator = log_in(client, "olga")
    assert client.post("/auth/token", data={"grant_type": "password"}).status_code == 429
    (entry,) = wait_for_entries(client, operator, event="access", outcome="rate_limited")
    assert (entry["actor"], entry["detail"]) == ("", {"limit": "token"})


def test_a_request_for_an_unknown_host_is_recorded(client: TestClient, operator: dict[str, str]) -> None:
    """A request for a host that is not allowed is recorded, without the name of the host."""
    assert client.get("/v1/me", headers={"Host": "evil.example"}).status_code == 421
    (entry,) = wait_for_entries(client, operator, event="access", outcome="misdirected")
    assert (entry["actor"], entry["detail"]) == ("", {})


def test_a_missing_scope_is_recorded(client: TestClient, operator: dict[str, str], log_in: LogIn) -> None:
    """A client may not read the log, and the attempt is recorded with the client as actor."""
    ana = log_in(client)
    refused = client.get("/v1/audit", headers=ana)
    assert (refused.status_code, refused.json()["code"]) == (403, "insufficient_scope")
    (entry,) = wait_for_entries(client, operator, outcome="forbidden")
    assert entry["actor"] == client.get("/v1/me", headers=ana).json()["subject"]
    assert entry["detail"] == {"scope": "audit:read"}


@pytest.mark.parametrize(
    ("path", "body", "event", "outcome"),
    [
        ("/v1/keys", {"name": "maps"}, "key", "refused"),
        ("/v1/me/password", {"current": "wrong horse battery", "new": "correct horse staple"}, "access", "forbidden"),
        ("/v1/me/totp", {"password": "wrong horse battery"}, "access", "forbidden"),
    ],
)
def test_a_caller_without_an_account_is_recorded(
    client: TestClient,
    settings: Settings,
    operator: dict[str, str],
    path: str,
    body: dict[str, str],
    event: str,
    outcome: str,
) -> None:
    """A client has no account here. Its attempts to use one are recorded with the client as actor."""
    scopes = {Scope.KEYS_WRITE, Scope.PREDICT}
    maps, secret = run_with_engine(settings, lambda engine: ClientStore(engine).add("maps", scopes))
    token = client.post("/auth/token", data={"grant_type": "client_credentials"}, auth=(maps.id, secret))
    response = client.post(path, json=body, headers={"Authorization": f"Bearer {token.json()['access_token']}"})
    assert (response.status_code, response.json()["code"]) == (403, "no_account")
    (entry,) = wait_for_entries(client, operator, event=event, outcome=outcome)
    assert (entry["actor"], entry["detail"]) == (maps.id, {"code": "no_account"})


def test_a_failed_login_is_recorded(client: TestClient, operator: dict[str, str]) -> None:
    """A wrong password is recorded without the password."""
    form = {"grant_type": "password", "username": "ana", "password": "wrong horse battery"}
    assert client.post("/auth/token", data=form).status_code == 400
    found = wait_for_entries(client, operator, event="token", outcome="refused")
    assert found[0]["detail"]["code"] == "bad_credentials"
    assert "horse" not in str(found)


def test_a_revocation_is_recorded(client: TestClient, operator: dict[str, str], password: str) -> None:
    """The revocation of a session is recorded with the session as target."""
    form = {"grant_type": "password", "username": "ana", "password": password}
    token = client.post("/auth/token", data=form).json()["refresh_token"]
    assert client.post("/auth/revoke", data={"token": token, "client_id": "atalaya-first-party"}).status_code == 200
    (entry,) = entries(client, operator, outcome="revoked")
    assert entry["target"].startswith("sid:")


@pytest.mark.parametrize(("route", "event"), [("revoke", "revocation"), ("introspect", "introspection")])
def test_a_rejected_client_is_recorded(client: TestClient, operator: dict[str, str], route: str, event: str) -> None:
    """A wrong client secret is recorded at every endpoint that takes one."""
    form = {"token": "x", "client_id": "maps", "client_secret": "sesame"}
    assert client.post(f"/auth/{route}", data=form).status_code == 401
    (entry,) = wait_for_entries(client, operator, event=event, outcome="refused")
    assert (entry["detail"], "sesame" in str(entry)) == ({"code": "invalid_client"}, False)


def test_pages_follow_each_other(client: TestClient, operator: dict[str, str], log_in: LogIn) -> None:
    """Pages list the log newest first, and the last page has no next one."""
    for _ in range(3):
        log_in(client)
    seen: list[int] = []
    query: dict[str, Any] = {"limit": 3}
    while True:
        page = client.get("/v1/audit", headers=operator, params=query).json()
        seen += [entry["seq"] for entry in page["entries"]]
        if page["next"] is None:
            break
        query["cursor"] = page["next"]
    assert seen == sorted(seen, reverse=True)
    assert len(seen) == len(set(seen)) == seen[0]


def test_filters(client: TestClient, operator: dict[str, str]) -> None:
    """Entries are selected by actor and time; a filter without a match selects none."""
    (newest,) = entries(client, operator, outcome="issued", limit=1)
    assert entries(client, operator, actor=newest["actor"], since=newest["at"])[-1] == newest
    assert newest not in entries(client, operator, until=newest["at"])
    assert entries(client, operator, event="token", outcome="forbidden") == []


@pytest.mark.parametrize(
    "query",
    [
        {"since": "2026-01-01T00:00:00"},
        {"since": "0001-01-01T00:00:00+23:59"},
        {"until": "9999-12-31T23:59:59-23:59"},
        {"until": "x"},
        {"limit": 501},
        {"limit": 0},
        {"cursor": "-1"},
    ],
)
def test_a_bad_filter_is_rejected(shared_client: TestClient, shared_bearers: Bearers, query: dict[str, Any]) -> None:
    """A time without an offset or out of range, a limit out of bounds, or an invalid cursor gets 422."""
    assert shared_client.get("/v1/audit", headers=shared_bearers["olga"], params=query).status_code == 422


def test_no_token_is_issued_unrecorded(client: TestClient, tmp_path: Path, password: str) -> None:
    """While the log cannot be written, token requests get a 503 in OAuth's form; afterwards tokens are issued again."""
    form = {"grant_type": "password", "username": "ana", "password": password}
    execute(tmp_path, "ALTER TABLE audit_events RENAME TO elsewhere")
    refused = client.post("/auth/token", data=form)
    assert (refused.status_code, refused.json()["error"]) == (503, "temporarily_unavailable")
    assert refused.headers["retry-after"] == "1"
    assert client.get("/v1/me").status_code == 401
    execute(tmp_path, "ALTER TABLE elsewhere RENAME TO audit_events")
    assert client.post("/auth/token", data=form).status_code == 200


def test_an_unreadable_log_is_a_503(client: TestClient, operator: dict[str, str], tmp_path: Path) -> None:
    """While the log cannot be read the response is a problem document with Retry-After, not an empty list."""
    execute(tmp_path, "ALTER TABLE audit_events RENAME TO elsewhere")
    refused = client.get("/v1/audit", headers=operator)
    assert (refused.status_code, refused.json()["code"]) == (503, "audit_unavailable")
    assert refused.headers["retry-after"] == "1"
