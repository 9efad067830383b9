"""Line 29 on a running gateway: what is recorded, how soon, how safely, and that later changes show."""

from __future__ import annotations

import json
import sqlite3
import time
from datetime import UTC, datetime
from typing import Any

import httpx


def post_token(gateway: Any, **form: str) -> httpx.Response:
    return httpx.post(f"{gateway.base_url}/auth/token", data=form)


def on_record(gateway: Any, *options: str) -> list[dict[str, Any]]:
    done = gateway.run("audit", "--json", *options)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def wait_for(gateway: Any, since: str, **wanted: str) -> dict[str, Any]:
    """The first entry since a moment with these fields; fails unless it is there within two seconds."""
    olga = gateway.client("olga")
    deadline = time.monotonic() + 2
    while True:
        for entry in olga.get("/v1/audit", params={"since": since, "limit": "500"}).json()["entries"]:
            if wanted.items() <= entry.items():
                found: dict[str, Any] = entry
                return found
        assert time.monotonic() < deadline, wanted


def now() -> str:
    return datetime.now(UTC).isoformat()


def test_line_29_every_login_failure_denial_and_admin_act_is_recorded(gateway: Any) -> None:
    """A log-in, a wrong password, missing and bad credentials, a missing scope, a revocation, a new user."""
    since = now()
    pair = post_token(gateway, grant_type="password", username="ana", password="correct horse battery").json()
    assert post_token(gateway, grant_type="password", username="ana", password="wrong horse").status_code == 400
    assert httpx.get(f"{gateway.base_url}/v1/me").status_code == 401
    assert httpx.get(f"{gateway.base_url}/v1/me", headers={"X-API-Key": "x"}).status_code == 401
    bearer = {"Authorization": f"Bearer {pair['access_token']}"}
    assert httpx.get(f"{gateway.base_url}/v1/audit", headers=bearer).status_code == 403
    httpx.post(f"{gateway.base_url}/auth/revoke", data={"token": pair["refresh_token"]}, headers=bearer)
    added = gateway.run("users", "add", "eve", "--role", "client", "--password-stdin", stdin="correct horse battery")
    assert added.returncode == 0, added.stderr
    for event, outcome in (
        ("token", "issued"),
        ("token", "refused"),
        ("access", "missing"),
        ("access", "invalid"),
        ("access", "forbidden"),
        ("token", "revoked"),
        ("user", "created"),
    ):
        entry = wait_for(gateway, since, event=event, outcome=outcome)
        assert entry["at"].endswith("Z")
        assert entry["at"] >= since[:19]
    assert wait_for(gateway, since, event="user", outcome="created")["actor"].startswith("cli:")
    metrics = httpx.get(gateway.metrics_url).text
    assert 'atalaya_auth_events_total{event="access",outcome="forbidden"}' in metrics


def test_line_29_no_line_is_injected_and_no_secret_kept(gateway: Any) -> None:
    """Neither line ends nor credentials that a caller sends appear in the record."""
    since = now()
    hostile = "ana\r\n9 2026-01-01 token issued actor=root"
    password = "atl_7fQ2_sesame-open-sesame"
    assert post_token(gateway, grant_type="password", username=hostile, password=password).status_code == 400
    headers = {"Authorization": f"Bearer {password}", "X-Request-ID": "x\ty-injected-z"}
    assert httpx.get(f"{gateway.base_url}/v1/me", headers=headers).status_code == 401
    wait_for(gateway, since, event="token", outcome="refused")
    wait_for(gateway, since, event="access", outcome="invalid")
    lines = gateway.run("audit", "--since", since).stdout.splitlines()
    assert all(line.split()[0].isdecimal() for line in lines)
    exported = gateway.run("audit", "--export", "-").stdout
    assert "sesame" not in exported
    assert "injected" not in exported


def test_line_29_a_flood_of_refusals_stays_small(gateway: Any) -> None:
    """Three hundred equal refusals are a few entries, whose counts add up."""
    since = now()
    with httpx.Client(base_url=gateway.base_url) as client:
        for _ in range(300):
            assert client.get("/v1/me", headers={"Authorization": "Bearer flood"}).status_code == 401
    deadline = time.monotonic() + 3
    while True:
        found = [entry for entry in on_record(gateway, "--since", since) if entry["outcome"] == "invalid"]
        if sum(entry["count"] for entry in found) >= 300:
            break
        assert time.monotonic() < deadline, found
    assert len(found) < 60


def test_line_29_a_later_change_shows(new_gateway: Any) -> None:
    """The record of a gateway that is serving verifies; once somebody edits the database, the entry is named."""
    gateway = new_gateway()
    gateway.token()
    assert gateway.run("audit", "verify").returncode == 0
    with sqlite3.connect(gateway.folder / "gateway.db") as connection:
        connection.execute("UPDATE audit_events SET actor = 'nobody' WHERE event = 'token'")
    connection.close()
    broken = gateway.run("audit", "verify")
    assert broken.returncode == 1
    assert "was changed" in broken.stderr
