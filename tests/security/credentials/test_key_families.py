"""Threat T45: keys that were created with a leaked key are revoked together with it, on a running gateway."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.security.credentials.revocation import assert_soon_rejected, request_me
from tests.support.gateway import PASSWORD, Gateway

SCOPES = ["keys:write", "predict"]


@pytest.fixture(scope="module")
def owner(gateway: Gateway) -> httpx.Client:
    """A user whom only this module uses."""
    gateway.add_user("kim")
    return gateway.client("kim")


def create(gateway: Gateway, headers: dict[str, str], name: str) -> dict[str, Any]:
    response = gateway.post("/v1/keys", headers=headers, json={"name": name, "scopes": SCOPES})
    assert response.status_code == 201, response.text
    created: dict[str, Any] = response.json()
    return created


def make_family(gateway: Gateway, owner: httpx.Client) -> list[dict[str, Any]]:
    """Create a key, a key created with it, and a key created with that one; the gateway accepts all three."""
    family = [owner.post("/v1/keys", json={"name": "camera", "scopes": SCOPES}).json()]
    for name in ("child", "grandchild"):
        family.append(create(gateway, {"X-API-Key": family[-1]["key"]}, name))
    assert [request_me(gateway, key["key"]) for key in family] == [200, 200, 200]
    return family


def list_parents(gateway: Gateway, user: str) -> dict[str, str | None]:
    listed = json.loads(gateway.run("keys", "list", "--user", user, "--json").stdout)
    return {key["id"]: key["parent_id"] for key in listed}


def test_a_key_shows_which_key_created_it(gateway: Gateway, owner: httpx.Client) -> None:
    """T45: the API and the command line show the parent of each key; a key that a login created has none."""
    root, child, grandchild = make_family(gateway, owner)
    expected = {root["id"]: None, child["id"]: root["id"], grandchild["id"]: child["id"]}
    assert {key_id: owner.get(f"/v1/keys/{key_id}").json()["parent_id"] for key_id in expected} == expected
    assert expected.items() <= list_parents(gateway, "kim").items()
    table = gateway.run("keys", "list", "--user", "kim").stdout
    assert "created" in table
    assert root["id"] in table


@pytest.mark.parametrize("query", ["?leaked=true", "?cascade=true"])
def test_a_leaked_keys_descendants_are_revoked_with_it(gateway: Gateway, owner: httpx.Client, query: str) -> None:
    """T45: reporting a key as leaked, or requesting a cascade, revokes the whole family at once."""
    family = make_family(gateway, owner)
    assert owner.delete(f"/v1/keys/{family[0]['id']}{query}").status_code == 204
    assert [request_me(gateway, key["key"]) for key in family] == [401, 401, 401]


@pytest.mark.parametrize("option", ["--leaked", "--cascade"])
def test_the_command_revokes_the_family(gateway: Gateway, owner: httpx.Client, option: str) -> None:
    """T45: `atalaya keys revoke --leaked` and `--cascade` revoke the family and say which keys they revoked."""
    family = make_family(gateway, owner)
    revoked = gateway.run("keys", "revoke", family[0]["id"], option)
    assert revoked.returncode == 0, revoked.stderr
    assert [line.split()[0] for line in revoked.stdout.splitlines()] == [key["id"] for key in family]
    assert_soon_rejected(gateway, *(key["key"] for key in family))


def test_descendants_stay_unless_a_cascade_is_wanted(gateway: Gateway, owner: httpx.Client) -> None:
    """T45: a plain revocation, and one of a leaked key with `--no-cascade`, leave the other keys valid."""
    root, child, grandchild = make_family(gateway, owner)
    assert owner.delete(f"/v1/keys/{root['id']}").status_code == 204
    assert [request_me(gateway, key["key"]) for key in (root, child, grandchild)] == [401, 200, 200]
    result = gateway.run("keys", "revoke", child["id"], "--leaked", "--no-cascade", "--json")
    assert json.loads(result.stdout)["also_revoked"] == []
    assert_soon_rejected(gateway, child["key"])
    assert request_me(gateway, grandchild["key"]) == 200


def test_the_audit_log_tells_why_each_key_was_revoked(gateway: Gateway, owner: httpx.Client) -> None:
    """T45: each key of a cascade has an entry with the reason and, for a descendant, the key reported as leaked."""
    root, child, _ = make_family(gateway, owner)
    assert owner.delete(f"/v1/keys/{root['id']}", params={"leaked": True}).status_code == 204
    entries = gateway.client("olga").get("/v1/audit", params={"event": "key"}).json()["entries"]
    details = {entry["target"]: entry["detail"] for entry in entries if entry["outcome"] == "revoked"}
    assert details[f"key:{root['id']}"] == {"reason": "leaked"}
    assert details[f"key:{child['id']}"] == {"reason": "leaked", "with": f"key:{root['id']}"}


def test_a_password_change_leaves_keys_valid(gateway: Gateway) -> None:
    """T45: a new password ends the other sessions and their tokens, but no API key, as the documentation says."""
    gateway.add_user("lea")
    other = {"Authorization": f"Bearer {gateway.token('lea')}"}
    current = {"Authorization": f"Bearer {gateway.token('lea')}"}
    key = create(gateway, current, "camera")
    body = {"current_password": PASSWORD, "new_password": "walnut ferry quiet lamp"}
    assert gateway.post("/v1/me/password", headers=current, json=body).status_code == 204
    statuses = [gateway.get("/v1/me", headers=headers).status_code for headers in (other, current)]
    assert (statuses, request_me(gateway, key["key"])) == ([401, 200], 200)
