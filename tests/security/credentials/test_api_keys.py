"""Threats T14, T19, T20 and T21 for API keys, on a running gateway."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from typing import Any

import httpx
import pytest

from tests.security.credentials.revocation import assert_soon_rejected, request_me
from tests.support.gateway import TIMEOUT_S, Gateway
from tests.support.paths import FOREST
from tests.support.polling import wait_until


def create_key(gateway: Gateway, user: str = "ana", **terms: Any) -> dict[str, Any]:
    response = gateway.client(user).post("/v1/keys", json={"name": "maps", **terms})
    assert response.status_code == 201, response.text
    created: dict[str, Any] = response.json()
    return created


@pytest.fixture(scope="module")
def bea(gateway: Gateway) -> httpx.Client:
    """A second user with the role of `ana`."""
    gateway.add_user("bea")
    return gateway.client("bea")


def test_a_key_is_long_and_random(gateway: Gateway) -> None:
    """T14: a key has a prefix that secret scanners recognise, and 256 random bits."""
    keys = [create_key(gateway)["key"] for _ in range(2)]
    assert all(re.fullmatch(r"atl_[0-9a-f]{16}_[A-Za-z0-9_-]{43}", key) for key in keys)
    assert keys[0][-43:] != keys[1][-43:]


def test_a_key_is_stored_hashed_and_shown_once(gateway: Gateway) -> None:
    """T14: no file of the database, no log line and no later response contains a key that was used."""
    owner = gateway.client()
    created = owner.post("/v1/keys", json={"name": "maps"}).json()
    secret = created["key"][-43:]
    assert request_me(gateway, created["key"]) == 200
    assert request_me(gateway, created["key"][:-1] + "!") == 401
    for path in ("/v1/keys", f"/v1/keys/{created['id']}"):
        assert secret not in owner.get(path).text
    for file in gateway.folder.rglob("*"):
        assert file.is_dir() or secret.encode() not in file.read_bytes(), file.name
    assert secret not in gateway.run("keys", "list", "--json").stdout


def test_a_key_has_only_its_scopes(gateway: Gateway) -> None:
    """T14: a key permits what its scopes name, and nothing else that its owner may do."""
    headers = {"X-API-Key": create_key(gateway, scopes=["predict"])["key"]}
    with httpx.Client(base_url=gateway.base_url, headers=headers, timeout=TIMEOUT_S) as client:
        assert client.post("/v1/predictions", files={"file": FOREST.read_bytes()}).status_code == 200
        refused = client.get("/v1/keys")
    assert (refused.status_code, refused.json()["code"]) == (403, "insufficient_scope")


def test_a_key_expires(gateway: Gateway) -> None:
    """T14: every key has an expiry time, after which it is rejected."""
    created = create_key(gateway, expires_days=1)
    assert created["expires_at"] > created["created_at"]
    with closing(sqlite3.connect(gateway.database_path)) as database, database:
        database.execute("UPDATE api_keys SET expires_at = '2020-01-01 00:00:00.000000' WHERE id = ?", [created["id"]])
    assert request_me(gateway, created["key"]) == 401


def test_a_key_rotates_with_overlap(gateway: Gateway) -> None:
    """T14: after a rotation by another process both secrets work; without overlap, soon only the new one does."""
    created = create_key(gateway)
    assert request_me(gateway, created["key"]) == 200
    second = json.loads(gateway.run("keys", "rotate", created["id"], "--json").stdout)["key"]
    assert request_me(gateway, created["key"]) == request_me(gateway, second) == 200
    third = json.loads(gateway.run("keys", "rotate", created["id"], "--overlap-hours", "0", "--json").stdout)["key"]
    assert_soon_rejected(gateway, second)
    assert (request_me(gateway, created["key"]), request_me(gateway, third)) == (401, 200)


def test_a_revoked_key_is_soon_rejected(gateway: Gateway) -> None:
    """T14: the gateway soon rejects a key that it has accepted and that another process revokes."""
    created = create_key(gateway)
    assert request_me(gateway, created["key"]) == 200
    assert gateway.run("keys", "revoke", created["id"]).returncode == 0
    assert_soon_rejected(gateway, created["key"])


def test_wrong_keys_get_the_same_response(gateway: Gateway) -> None:
    """T14: an unknown key, a wrong secret and a revoked key get the same response."""
    created = create_key(gateway)
    assert gateway.client().delete(f"/v1/keys/{created['id']}").status_code == 204
    wrong = [created["key"], created["key"][:-43] + "A" * 43, f"atl_{'0' * 16}_{'A' * 43}", "atl_x"]
    bodies = []
    for key in wrong:
        response = gateway.get("/v1/me", headers={"Authorization": f"Bearer {key}"})
        assert response.status_code == 401
        assert 'error="invalid_token"' in response.headers["www-authenticate"]
        bodies.append({**response.json(), "request_id": ""})
    assert all(body == bodies[0] for body in bodies)


def test_a_key_works_only_from_its_addresses(gateway: Gateway) -> None:
    """T14: a key that is bound to networks is rejected from any other address, whatever a header claims."""
    here, elsewhere = create_key(gateway, addresses=["127.0.0.0/8"]), create_key(gateway, addresses=["10.0.0.0/8"])
    assert (request_me(gateway, here["key"]), request_me(gateway, elsewhere["key"])) == (200, 401)
    headers = {"X-API-Key": elsewhere["key"], "X-Forwarded-For": "10.0.0.1"}
    assert gateway.get("/v1/me", headers=headers).status_code == 401


def test_a_disabled_owners_key_is_soon_rejected(gateway: Gateway) -> None:
    """T14: the gateway soon rejects the keys of a user who is disabled."""
    gateway.add_user("gone")
    created = create_key(gateway, user="gone")
    assert request_me(gateway, created["key"]) == 200
    assert gateway.run("users", "disable", "gone").returncode == 0
    assert_soon_rejected(gateway, created["key"])


def test_the_last_use_of_a_key_is_recorded(gateway: Gateway) -> None:
    """T14: the list of keys shows the time of a key's last use."""
    owner = gateway.client()
    created = owner.post("/v1/keys", json={"name": "maps"}).json()
    assert request_me(gateway, created["key"]) == 200
    wait_until(lambda: owner.get(f"/v1/keys/{created['id']}").json()["last_used_at"] is not None)


def test_classify_accepts_a_key(gateway: Gateway) -> None:
    """T14: `atalaya classify` predicts with a key."""
    key = create_key(gateway)["key"]
    classify = gateway.run("classify", "--url", gateway.base_url, "--key", key, "--json", str(FOREST))
    assert classify.returncode == 0, classify.stderr
    assert json.loads(classify.stdout)[0]["label"]


def test_another_users_key_is_not_found(gateway: Gateway, bea: httpx.Client) -> None:
    """T19: any request about another owner's key gets the same 404 as for a key that never existed."""
    created = create_key(gateway)
    for key_id in (created["id"], "0" * 16):
        path = f"/v1/keys/{key_id}"
        for response in (bea.get(path), bea.delete(path), bea.post(f"{path}/rotate")):
            assert (response.status_code, response.json()["code"]) == (404, "key_not_found")
    assert created["id"] not in bea.get("/v1/keys").text
    assert request_me(gateway, created["key"]) == 200


@pytest.mark.parametrize("more", [{"role": "admin"}, {"user_id": "x"}, {"key": "atl_x"}, {"scopes": ["users:admin"]}])
def test_no_field_raises_a_keys_rights(gateway: Gateway, more: dict[str, Any]) -> None:
    """T20: fields that would set a key's role, owner or secret are rejected, as are scopes that its creator lacks."""
    owner = gateway.client()
    before = owner.get("/v1/keys").json()
    assert owner.post("/v1/keys", json={"name": "maps", **more}).status_code in (403, 422)
    assert len(owner.get("/v1/keys").json()) == len(before)


def test_a_rotation_changes_no_scope(gateway: Gateway) -> None:
    """T20: a rotation with scopes in its body is rejected and changes none."""
    owner = gateway.client()
    created = owner.post("/v1/keys", json={"name": "maps"}).json()
    response = owner.post(f"/v1/keys/{created['id']}/rotate", json={"scopes": ["predict", "keys:write"]})
    assert response.status_code == 422
    assert owner.get(f"/v1/keys/{created['id']}").json()["scopes"] == ["predict"]


def test_a_client_cannot_list_another_users_keys(gateway: Gateway, bea: httpx.Client) -> None:
    """T21: listing another user's keys without the scope `users:admin` gets a 403, by token and by key."""
    created = create_key(gateway, scopes=["keys:write"])
    other = {"user": bea.get("/v1/me").json()["subject"]}
    by_token = gateway.client().get("/v1/keys", params=other)
    by_key = gateway.get("/v1/keys", params=other, headers={"X-API-Key": created["key"]})
    for response in (by_token, by_key):
        assert (response.status_code, response.json()["code"]) == (403, "insufficient_scope")


def test_a_key_gives_no_access_that_its_owner_lacks(gateway: Gateway) -> None:
    """T21: a client's key gets a 403 on an operator's route."""
    headers = {"X-API-Key": create_key(gateway, scopes=["predict", "predictions:read", "keys:write"])["key"]}
    response = gateway.get("/metrics", headers=headers)
    assert (response.status_code, response.json()["code"]) == (403, "insufficient_scope")


def test_the_previous_secret_cannot_undo_a_rotation(gateway: Gateway) -> None:
    """T14: a key rotates itself with its current secret only, even if both secrets expire at the same time."""
    key = create_key(gateway, scopes=["keys:write"], expires_days=1)

    def rotate(secret: str, overlap_hours: int) -> httpx.Response:
        path, headers = f"/v1/keys/{key['id']}/rotate", {"X-API-Key": secret}
        return gateway.post(path, json={"overlap_hours": overlap_hours}, headers=headers)

    current = rotate(key["key"], 48).json()["key"]
    refused = rotate(key["key"], 0)
    assert (refused.status_code, refused.json()["code"]) == (403, "key_bound")
    assert "previous secret" in refused.json()["detail"]
    assert request_me(gateway, current) == 200
