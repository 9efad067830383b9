"""Lines 14, 19, 20 and 21 for API keys, on running gateways."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

PASSWORD = "correct horse battery"
SAMPLE = Path(__file__).parents[2] / "samples" / "yellowstone_forest.jpg"


def make(gateway: Any, user: str = "ana", **asked: Any) -> dict[str, Any]:
    answer = gateway.client(user).post("/v1/keys", json={"name": "maps", **asked})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def me(gateway: Any, key: str) -> int:
    return httpx.get(f"{gateway.base_url}/v1/me", headers={"X-API-Key": key}).status_code


def wait_until(done: Callable[[], bool], seconds: float) -> None:
    began = time.monotonic()
    while not done():
        assert time.monotonic() - began < seconds


@pytest.fixture
def bea(gateway: Any) -> httpx.Client:
    """Another client beside `ana`."""
    added = gateway.run("users", "add", "bea", "--role", "client", "--password-stdin", stdin=PASSWORD)
    assert added.returncode == 0 or "already" in added.stderr
    return gateway.client("bea")


def test_line_14_a_key_is_long_and_random(gateway: Any) -> None:
    """A key has a prefix that scanners know and 256 random bits."""
    keys = [make(gateway)["key"] for _ in range(2)]
    assert all(re.fullmatch(r"atl_[0-9a-f]{16}_[A-Za-z0-9_-]{43}", key) for key in keys)
    assert keys[0][-43:] != keys[1][-43:]


def test_line_14_a_key_is_stored_hashed_and_shown_once(gateway: Any) -> None:
    """Neither the database's files, nor the log, nor any later answer hold a key that was used."""
    owner = gateway.client()
    made = owner.post("/v1/keys", json={"name": "maps"}).json()
    secret = made["key"][-43:]
    assert me(gateway, made["key"]) == 200
    assert me(gateway, made["key"][:-1] + "!") == 401
    for path in ("/v1/keys", f"/v1/keys/{made['id']}"):
        assert secret not in owner.get(path).text
    for file in gateway.folder.rglob("*"):
        assert file.is_dir() or secret.encode() not in file.read_bytes(), file.name
    assert secret not in gateway.run("keys", "list", "--json").stdout


def test_line_14_a_key_is_scoped(gateway: Any) -> None:
    """A key does what its scopes say, and the rest of its owner's rights are not its own."""
    headers = {"X-API-Key": make(gateway, scopes=["predict"])["key"]}
    with httpx.Client(base_url=gateway.base_url, headers=headers) as client:
        assert client.post("/v1/predictions", files={"file": SAMPLE.read_bytes()}).status_code == 200
        refused = client.get("/v1/keys")
    assert (refused.status_code, refused.json()["code"]) == (403, "insufficient_scope")


def test_line_14_a_key_expires(gateway: Any) -> None:
    """Every key has an end, and counts no longer after it."""
    made = make(gateway, expires_days=1)
    assert made["expires_at"] > made["created_at"]
    with sqlite3.connect(gateway.folder / "gateway.db") as database:
        database.execute("UPDATE api_keys SET expires_at = '2020-01-01 00:00:00.000000' WHERE id = ?", [made["id"]])
    assert me(gateway, made["key"]) == 401


def test_line_14_a_key_rotates_with_overlap(gateway: Any) -> None:
    """Rotated by another process, both secrets count; without an overlap only the new one, within a second."""
    made = make(gateway)
    assert me(gateway, made["key"]) == 200
    second = json.loads(gateway.run("keys", "rotate", made["id"], "--json").stdout)["key"]
    assert me(gateway, made["key"]) == me(gateway, second) == 200
    third = json.loads(gateway.run("keys", "rotate", made["id"], "--overlap-hours", "0", "--json").stdout)["key"]
    wait_until(lambda: me(gateway, second) == 401, 1)
    assert (me(gateway, made["key"]), me(gateway, third)) == (401, 200)


def test_line_14_a_revoked_key_ends_within_a_second(gateway: Any) -> None:
    """A key that the gateway has just accepted is refused within a second of its revocation by another process."""
    made = make(gateway)
    assert me(gateway, made["key"]) == 200
    assert gateway.run("keys", "revoke", made["id"]).returncode == 0
    wait_until(lambda: me(gateway, made["key"]) == 401, 1)


def test_line_14_wrong_keys_are_refused_alike(gateway: Any) -> None:
    """An unknown key, a wrong secret and a revoked key get the same answer."""
    made = make(gateway)
    assert gateway.client().delete(f"/v1/keys/{made['id']}").status_code == 204
    wrong = [made["key"], made["key"][:-43] + "A" * 43, f"atl_{'0' * 16}_{'A' * 43}", "atl_x"]
    bodies = []
    for key in wrong:
        answer = httpx.get(f"{gateway.base_url}/v1/me", headers={"Authorization": f"Bearer {key}"})
        assert answer.status_code == 401
        assert 'error="invalid_token"' in answer.headers["www-authenticate"]
        bodies.append({**answer.json(), "request_id": ""})
    assert all(body == bodies[0] for body in bodies)


def test_line_14_a_key_counts_from_its_addresses(gateway: Any) -> None:
    """A key that is bound to networks is refused from any other address, whatever a header claims."""
    here, elsewhere = make(gateway, addresses=["127.0.0.0/8"]), make(gateway, addresses=["10.0.0.0/8"])
    assert (me(gateway, here["key"]), me(gateway, elsewhere["key"])) == (200, 401)
    headers = {"X-API-Key": elsewhere["key"], "X-Forwarded-For": "10.0.0.1"}
    assert httpx.get(f"{gateway.base_url}/v1/me", headers=headers).status_code == 401


def test_line_14_a_disabled_owner_s_key_is_refused(gateway: Any) -> None:
    """Disabling a user ends the user's keys within a second."""
    gateway.run("users", "add", "gone", "--role", "client", "--password-stdin", stdin=PASSWORD)
    made = make(gateway, user="gone")
    assert me(gateway, made["key"]) == 200
    assert gateway.run("users", "disable", "gone").returncode == 0
    wait_until(lambda: me(gateway, made["key"]) == 401, 1)


def test_line_14_the_last_use_is_kept(gateway: Any) -> None:
    """When a key was last used comes to its list within seconds."""
    owner = gateway.client()
    made = owner.post("/v1/keys", json={"name": "maps"}).json()
    assert me(gateway, made["key"]) == 200
    wait_until(lambda: owner.get(f"/v1/keys/{made['id']}").json()["last_used_at"] is not None, 10)


def test_line_14_classify_takes_a_key(gateway: Any) -> None:
    """The command line predicts with a key."""
    key = make(gateway)["key"]
    done: subprocess.CompletedProcess[str] = gateway.run(
        "classify", "--url", gateway.base_url, "--key", key, "--json", str(SAMPLE)
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["label"]


def test_line_19_another_s_key_is_not_found(gateway: Any, bea: httpx.Client) -> None:
    """Another owner's key is the same 404 as one that never was, whatever is tried on it, and goes on working."""
    made = make(gateway)
    for key_id in (made["id"], "0" * 16):
        path = f"/v1/keys/{key_id}"
        for answer in (bea.get(path), bea.delete(path), bea.post(f"{path}/rotate")):
            assert (answer.status_code, answer.json()["code"]) == (404, "key_not_found")
    assert made["id"] not in bea.get("/v1/keys").text
    assert me(gateway, made["key"]) == 200


@pytest.mark.parametrize("more", [{"role": "admin"}, {"user_id": "x"}, {"key": "atl_x"}, {"scopes": ["users:admin"]}])
def test_line_20_no_field_gives_more(gateway: Any, more: dict[str, Any]) -> None:
    """Fields that would give a key another role, owner or text are refused, and so are scopes that its maker lacks."""
    owner = gateway.client()
    before = owner.get("/v1/keys").json()
    assert owner.post("/v1/keys", json={"name": "maps", **more}).status_code in (403, 422)
    assert len(owner.get("/v1/keys").json()) == len(before)


def test_line_20_a_rotation_changes_no_scope(gateway: Any) -> None:
    """A rotation takes no scopes."""
    owner = gateway.client()
    made = owner.post("/v1/keys", json={"name": "maps"}).json()
    answer = owner.post(f"/v1/keys/{made['id']}/rotate", json={"scopes": ["predict", "keys:write"]})
    assert answer.status_code == 422
    assert owner.get(f"/v1/keys/{made['id']}").json()["scopes"] == ["predict"]


def test_line_21_a_client_sees_no_other_user_s_keys(gateway: Any, bea: httpx.Client) -> None:
    """Asking for another user's keys needs `users:admin`; a client's token and a client's key are a 403."""
    made = make(gateway, scopes=["keys:write"])
    other = {"user": bea.get("/v1/me").json()["subject"]}
    by_token = gateway.client().get("/v1/keys", params=other)
    by_key = httpx.get(f"{gateway.base_url}/v1/keys", params=other, headers={"X-API-Key": made["key"]})
    for answer in (by_token, by_key):
        assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope")


def test_line_21_a_key_is_no_way_round(gateway: Any) -> None:
    """A client's key is a 403 on what its owner may not do."""
    headers = {"X-API-Key": make(gateway, scopes=["predict", "predictions:read", "keys:write"])["key"]}
    answer = httpx.get(f"{gateway.base_url}/metrics", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope")
