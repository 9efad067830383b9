"""Threats T49 and T70: what remains of deleted users.

No credential works, no record reveals the person, and a namesake inherits nothing, even if the erasure is interrupted.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

import httpx
import pexpect
import pytest

from tests.support.certificates import public_trust
from tests.support.gateway import PASSWORD, TIMEOUT_S, Gateway
from tests.support.paths import FOREST
from tests.support.polling import PATIENCE_S, wait_until

WHERE = "203.0.113.77"  # the address of the deleted user, as the trusted proxy names it


@pytest.fixture
def gateway(new_gateway: Callable[..., Gateway]) -> Gateway:
    """A gateway with two workers and the administrator `adam`."""
    gateway = new_gateway(MODEL__URL="stub://", WEB_CONCURRENCY="2", LIMITS__TRUSTED_PROXIES="127.0.0.1")
    gateway.add_user("adam", "admin")
    return gateway


class Person:
    """A user's credentials."""

    def __init__(self, gateway: Gateway, name: str = "ana") -> None:
        self._url, self._from = gateway.base_url, {"X-Forwarded-For": WHERE}
        form = {"grant_type": "password", "username": name, "password": PASSWORD}
        self.tokens = self._send("POST", "/auth/token", data=form).raise_for_status().json()
        self.id = self.get("/v1/me").json()["subject"]
        scopes = {"name": "camera", "scopes": ["predict", "predictions:read"]}
        self.key = self._send("POST", "/v1/keys", headers=self.bearer, json=scopes).raise_for_status().json()["key"]

    @property
    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.tokens['access_token']}"}

    def get(self, path: str) -> httpx.Response:
        return self._send("GET", path, headers=self.bearer)

    def predict(self) -> str:
        files = {"file": FOREST.read_bytes()}
        response = self._send("POST", "/v1/predictions", headers={"X-API-Key": self.key}, files=files)
        prediction_id: str = response.raise_for_status().json()["id"]
        return prediction_id

    def statuses(self) -> set[int]:
        """Return the statuses of several requests with each credential, each on its own connection.

        They come from another address, because the record of a rejection names no user, and so keeps its address.
        """
        self._from = {}
        form = {"grant_type": "refresh_token", "refresh_token": self.tokens["refresh_token"]}
        keys = {"X-API-Key": self.key}
        return {
            *(self.get("/v1/me").status_code for _ in range(6)),
            *(self._send("GET", "/v1/me", headers=keys).status_code for _ in range(6)),
            self._send("POST", "/auth/token", data=form).status_code,
        }

    def _send(self, method: str, path: str, headers: dict[str, str] | None = None, **options: Any) -> httpx.Response:
        sent = {**self._from, **(headers or {})}
        options |= {"headers": sent, "timeout": TIMEOUT_S, "verify": public_trust()}
        return httpx.request(method, f"{self._url}{path}", **options)


def check_records(gateway: Gateway, person: Person, predictions: int) -> None:
    """Assert that both records verify, and contain neither the person's address nor documents of predictions."""
    audit = gateway.run("audit", "verify")
    assert audit.returncode == 0, audit.stderr
    ledger = json.loads(gateway.run("ledger", "verify", "--json").stdout)
    assert (ledger["problems"], ledger["erased"]) == ([], predictions)
    with closing(sqlite3.connect(gateway.database_path)) as connection:
        dump = "\n".join(connection.iterdump())
    assert WHERE not in dump
    assert f'"principal":"{person.id}"' not in dump
    tables = {line.split('"')[1] for line in dump.splitlines() if person.id in line}
    # The erasure is repeated when requests that were running during the deletion have ended.
    assert tables == {"audit_events", "changes", "pending_erasures"}


def test_a_deleted_user_leaves_nothing_behind(gateway: Gateway) -> None:
    """T49: `users delete` ends every credential in both workers and erases the records; a namesake inherits nothing."""
    person = Person(gateway)
    old = [person.predict() for _ in range(3)]
    refused = gateway.run("users", "delete", "ana")
    assert (refused.returncode, "Use --yes in scripts" in refused.stderr) == (1, True)
    assert person.get("/v1/me").status_code == 200
    deleted = gateway.run("users", "delete", "ana", "--yes", "--json")
    assert deleted.returncode == 0, deleted.stderr
    result = json.loads(deleted.stdout)
    assert (result["id"], result["erased_predictions"]) == (person.id, 3)
    assert result["erased_audit_entries"] >= 2
    wait_until(lambda: person.statuses() <= {400, 401})  # a slow worker may not have read the change yet
    check_records(gateway, person, 3)
    gateway.add_user("ana")
    successor = Person(gateway)
    assert successor.id != person.id
    assert successor.get("/v1/predictions").json()["entries"] == []
    assert {successor.get(f"/v1/predictions/{each}").status_code for each in old} == {404}
    assert successor.get("/v1/usage").json()["requests"] == 0
    again = gateway.run("users", "delete", person.id, "--yes")
    assert again.returncode == 0, again.stderr
    nothing = "0 predictions, 0 audit entries and no images (IMAGES__URL is not set)"
    assert again.stdout == f"{person.id}: deleted; erased {nothing}.\n"


def test_an_administrator_deletes_a_user_over_http(gateway: Gateway) -> None:
    """T49: DELETE ends every credential, requires a login, and erases the records in the background."""
    person, admin = Person(gateway), gateway.client("adam")
    person.predict()
    path = f"/v1/users/{person.id}"
    scopes = {"name": "automation", "scopes": ["users:admin"]}
    key = admin.post("/v1/keys", json=scopes).raise_for_status().json()["key"]
    with_key = gateway.client("adam").delete(path, headers={"X-API-Key": key, "Authorization": ""})
    assert with_key.status_code in {401, 403}
    assert person.get("/v1/me").status_code == 200
    assert admin.delete(path).status_code == 204
    wait_until(lambda: person.statuses() <= {400, 401})
    assert admin.delete(path).status_code == 404
    last = admin.delete(f"/v1/users/{admin.get('/v1/me').json()['subject']}")
    assert (last.status_code, last.json()["code"]) == (409, "last_admin")
    wait_until(lambda: '"user_erased"' in gateway.log(), message=gateway.log)
    check_records(gateway, person, 1)
    outcomes = {(entry["event"], entry["outcome"]) for entry in admin.get("/v1/audit").json()["entries"]}
    assert {("user", "deleted"), ("audit", "erased")} <= outcomes


def test_a_killed_gateway_erases_after_its_next_start(new_gateway: Callable[..., Gateway]) -> None:
    """T70: if SIGKILL ends the gateway right after it deleted a user, the records are erased after the next start."""
    gateway = new_gateway(MODEL__URL="stub://", LIMITS__TRUSTED_PROXIES="127.0.0.1")
    gateway.add_user("adam", "admin")
    person, admin = Person(gateway), gateway.client("adam")
    person.predict()
    assert admin.delete(f"/v1/users/{person.id}").status_code == 204
    gateway.kill()
    with closing(sqlite3.connect(gateway.database_path)) as connection, connection:
        due = connection.execute("SELECT user_id FROM pending_erasures").fetchall()
        connection.execute("UPDATE pending_erasures SET due_at = '2026-01-01 00:00:00'")  # a minute has passed
    assert due == [(person.id,)]
    gateway.start()
    wait_until(lambda: '"user_erased"' in gateway.log(), message=gateway.log)
    check_records(gateway, person, 1)


def test_an_erasure_of_a_user_who_exists_is_rejected(new_gateway: Callable[..., Gateway]) -> None:
    """T70: a pending erasure that somebody adds to the database erases no record of a user who was not deleted."""
    gateway = new_gateway(MODEL__URL="stub://")
    person = Person(gateway)
    prediction = person.predict()
    gateway.stop()
    row = (person.id, "adam", "2026-01-01 00:00:00.000000")
    with closing(sqlite3.connect(gateway.database_path)) as connection, connection:
        connection.execute("INSERT INTO pending_erasures (user_id, actor, due_at) VALUES (?, ?, ?)", row)
    gateway.start()
    wait_until(lambda: '"erasure_rejected"' in gateway.log(), message=gateway.log)
    assert person.get(f"/v1/predictions/{prediction}").json()["label"]
    ledger = json.loads(gateway.run("ledger", "verify", "--json").stdout)
    assert (ledger["problems"], ledger["erased"]) == ([], 0)


def test_an_erasure_that_the_command_cannot_finish_stays_due(new_gateway: Callable[..., Gateway]) -> None:
    """T70: if `users delete` fails after the deletion, a running gateway still has to erase the rest."""
    gateway = new_gateway(MODEL__URL="stub://")
    person = Person(gateway)
    person.predict()
    gateway.stop()
    with closing(sqlite3.connect(gateway.database_path)) as connection, connection:
        connection.execute("UPDATE ledger_payloads SET salt = 'changed'")
    deleted = gateway.run("users", "delete", "ana", "--yes")
    assert (deleted.returncode, "was changed, so it was kept" in deleted.stderr) == (1, True), deleted.stderr
    assert f"atalaya users delete {person.id}" in deleted.stderr
    with closing(sqlite3.connect(gateway.database_path)) as connection:
        assert connection.execute("SELECT user_id FROM pending_erasures").fetchall() == [(person.id,)]


def test_a_deletion_is_confirmed_on_a_terminal(gateway: Gateway) -> None:
    """T49: on a terminal the command asks for confirmation; "n" deletes nothing, "y" deletes the user."""
    for response, status in (("n", 1), ("y", 0)):
        environment: Any = gateway.environment  # pexpect's type is that of os.environ
        program, *_ = gateway.command
        child = pexpect.spawn(
            program,
            ["users", "delete", "olga"],
            cwd=gateway.folder,
            env=environment,
            timeout=PATIENCE_S,
            encoding="utf-8",
        )
        child.expect("Delete olga and erase 0 predictions permanently\\?")
        child.sendline(response)
        child.expect(pexpect.EOF)
        child.close()
        assert child.exitstatus == status
    assert gateway.log_in("olga").status_code == 400
