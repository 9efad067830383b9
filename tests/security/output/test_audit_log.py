"""Threat T29: what the audit log of a running gateway records, how soon and how safely, and how changes are found."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import httpx

from tests.support.gateway import PASSWORD, TIMEOUT_S, Gateway
from tests.support.polling import wait_until

# Rejections are written in the background, once a second; the rest of the bound is for a slow and busy machine.
RECORDED_WITHIN_S = 20.0


def read_entries(gateway: Gateway, *options: str) -> list[dict[str, Any]]:
    audit = gateway.run("audit", "--json", *options)
    assert audit.returncode == 0, audit.stderr
    entries: list[dict[str, Any]] = json.loads(audit.stdout)
    return entries


def wait_for_entry(gateway: Gateway, since: str, **fields: str) -> dict[str, Any]:
    """Wait for an entry with these fields since a point in time, and return the first one."""
    operator = gateway.client("olga")
    found: list[dict[str, Any]] = []

    def is_recorded() -> bool:
        page = operator.get("/v1/audit", params={"since": since, "limit": "500"}).json()
        found.extend(entry for entry in page["entries"] if fields.items() <= entry.items())
        return bool(found)

    wait_until(is_recorded, within_s=RECORDED_WITHIN_S, message=fields)
    return found[0]


def now() -> str:
    return datetime.now(UTC).isoformat()


def test_every_login_failure_denial_and_administration_is_recorded(gateway: Gateway) -> None:
    """T29: logins, failures, missing or bad credentials, missing scopes, revocations and new users are recorded."""
    since = now()
    pair = gateway.log_in().json()
    assert gateway.log_in("ana", "wrong horse").status_code == 400
    assert gateway.get("/v1/me").status_code == 401
    assert gateway.get("/v1/me", headers={"X-API-Key": "x"}).status_code == 401
    bearer = {"Authorization": f"Bearer {pair['access_token']}"}
    assert gateway.get("/v1/audit", headers=bearer).status_code == 403
    gateway.post("/auth/revoke", data={"token": pair["refresh_token"]}, headers=bearer)
    added = gateway.run("users", "add", "eve", "--role", "client", "--password-stdin", stdin=PASSWORD)
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
        entry = wait_for_entry(gateway, since, event=event, outcome=outcome)
        assert entry["at"].endswith("Z")
        assert entry["at"] >= since[:19]
    assert wait_for_entry(gateway, since, event="user", outcome="created")["actor"].startswith("cli:")
    metrics = httpx.get(gateway.metrics_url, timeout=TIMEOUT_S).text
    assert 'atalaya_auth_events_total{event="access",outcome="forbidden"}' in metrics


def test_no_line_can_be_injected_and_no_secret_is_recorded(gateway: Gateway) -> None:
    """T29: neither line ends nor credentials that a caller sends appear in the audit log."""
    since = now()
    hostile = "ana\r\n9 2026-01-01 token issued actor=root"
    password = "atl_7fQ2_sesame-open-sesame"
    assert gateway.log_in(hostile, password).status_code == 400
    headers = {"Authorization": f"Bearer {password}", "X-Request-ID": "x\ty-injected-z"}
    assert gateway.get("/v1/me", headers=headers).status_code == 401
    wait_for_entry(gateway, since, event="token", outcome="refused")
    wait_for_entry(gateway, since, event="access", outcome="invalid")
    lines = gateway.run("audit", "--since", since).stdout.splitlines()
    assert all(line.split()[0].isdecimal() for line in lines)
    exported = gateway.run("audit", "--export", "-").stdout
    assert "sesame" not in exported
    assert "injected" not in exported


def test_equal_rejections_share_entries(gateway: Gateway) -> None:
    """T29: 300 equal rejections make fewer than 60 entries, whose counts add up to 300."""
    since, started = now(), time.monotonic()
    with httpx.Client(base_url=gateway.base_url, timeout=TIMEOUT_S) as client:
        for _ in range(300):
            assert client.get("/v1/me", headers={"Authorization": "Bearer flood"}).status_code == 401
    entries: list[dict[str, Any]] = []

    def are_all_recorded() -> bool:
        entries[:] = [entry for entry in read_entries(gateway, "--since", since) if entry["outcome"] == "invalid"]
        count: int = sum(entry["count"] for entry in entries)
        return count >= 300

    wait_until(are_all_recorded, within_s=RECORDED_WITHIN_S, message=lambda: entries)
    # Entries are written once a second: on a slow machine the requests take longer and make more of them.
    assert len(entries) < max(60, 2 * (time.monotonic() - started))


def test_a_later_change_is_detected(new_gateway: Callable[..., Gateway]) -> None:
    """T29: `atalaya audit verify` passes while the gateway runs, and finds an entry changed in the database."""
    gateway = new_gateway()
    gateway.token()
    assert gateway.run("audit", "verify").returncode == 0
    with closing(sqlite3.connect(gateway.database_path)) as database, database:
        database.execute("UPDATE audit_events SET actor = 'nobody' WHERE event = 'token'")
    broken = gateway.run("audit", "verify")
    assert broken.returncode == 1
    assert "was changed" in broken.stderr
