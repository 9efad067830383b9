"""Threats T12, T19 to T21 and T42 for users, on a running gateway."""

from __future__ import annotations

from collections.abc import Callable
from uuid import uuid4

import httpx
import pytest

from tests.support.gateway import PASSWORD, TIMEOUT_S, Gateway

# Cyrillic, full width, invisible characters, spaces, a direction override, a combining mark, a superscript.
LOOK_ALIKES = ["\u0430na", "\uff41na", "ana\u200b", "an\u00ada", "ana ", " ana", "ana\u00a0", "\u202eana"]
LOOK_ALIKES += ["a\u0301na", "\u00aana"]


@pytest.fixture
def gateway(new_gateway: Callable[..., Gateway]) -> Gateway:
    """A gateway that also has the administrator `adam`."""
    gateway = new_gateway(MODEL__URL="stub://")
    gateway.add_user("adam", "admin")
    return gateway


def user_ids(admin: httpx.Client) -> dict[str, str]:
    return {user["name"]: user["id"] for user in admin.get("/v1/users").json()}


def test_passwords_are_long_uncommon_and_never_truncated(gateway: Gateway) -> None:
    """T12: every route that sets a password rejects short and common ones; all of 128 characters are significant."""
    admin, ana = gateway.client("adam"), gateway.client("ana")
    path = f"/v1/users/{user_ids(admin)['olga']}"
    for rejected in ("", "elevenchars", "password1234", "PASSWORD1234", "aaaaaaaaaaaaaaaa", "qwertyuiop12", "x" * 1025):
        for response in (
            admin.post("/v1/users", json={"name": "bob", "role": "client", "password": rejected}),
            admin.patch(path, json={"password": rejected}),
            ana.post("/v1/me/password", json={"current_password": PASSWORD, "new_password": rejected}),
        ):
            assert (response.status_code, response.json()["code"]) == (422, "password_refused")
            assert not rejected or rejected not in response.text
    long = "".join(chr(0x21 + index * 7 % 94) for index in range(128))
    assert admin.patch(path, json={"password": long}).status_code == 200
    assert gateway.log_in("olga", long).status_code == 200
    assert gateway.log_in("olga", long[:-1]).status_code == 400
    assert gateway.log_in("olga", f"{long[:-1]}~").status_code == 400
    assert gateway.log_in("olga", long).status_code == 200
    assert admin.patch(path, json={"password": "twelve chars"}).status_code == 200
    assert long not in gateway.complete_log()


def test_passwords_are_the_same_from_every_keyboard(gateway: Gateway) -> None:
    """T12: a password matches in composed and in decomposed form, whichever form it was set in."""
    admin = gateway.client("adam")
    composed, decomposed = "h\u00e9ron \u00e0 c\u00f4t\u00e9 du lac", "he\u0301ron a\u0300 co\u0302te\u0301 du lac"
    path = f"/v1/users/{user_ids(admin)['ana']}"
    for chosen, entered in ((composed, decomposed), (decomposed, composed)):
        assert admin.patch(path, json={"password": chosen}).status_code == 200
        tokens = gateway.log_in("ana", entered)
        assert tokens.status_code == 200
        headers = {"Authorization": f"Bearer {tokens.json()['access_token']}"}
        change = {"current_password": entered, "new_password": PASSWORD}
        assert gateway.post("/v1/me/password", json=change, headers=headers).status_code == 204
        assert gateway.log_in("ana", "heron a cote du lac").status_code == 400
        assert gateway.log_in("ana").status_code == 200


def test_look_alike_names_are_rejected(gateway: Gateway) -> None:
    """T42: a name that looks like another can neither be created nor log in; a capitalised name logs in."""
    admin = gateway.client("adam")
    assert gateway.log_in("ana").status_code == 200
    for name in LOOK_ALIKES:
        body = {"name": name, "role": "client", "password": PASSWORD}
        response = admin.post("/v1/users", json=body)
        assert (response.status_code, response.json()["code"]) == (422, "bad_user_name")
        # After three failures the address must wait, whichever names were sent.
        assert gateway.log_in(name).status_code in (400, 429)
    assert admin.post("/v1/users", json={"name": "Ana", "role": "admin", "password": PASSWORD}).status_code == 422
    assert gateway.log_in("Ana").status_code == 200  # no wait: ana has logged in from this address
    assert sorted(user_ids(admin)) == ["adam", "ana", "olga"]


def test_another_user_is_not_found(gateway: Gateway) -> None:
    """T19: without the scope every user id gets the same 403; an administrator gets a 404 for an unknown id."""
    admin = gateway.client("adam")
    known, unknown = user_ids(admin)["olga"], str(uuid4())
    response = admin.get(f"/v1/users/{unknown}")
    assert (response.status_code, response.json()["code"]) == (404, "user_not_found")
    for name in ("ana", "olga"):
        caller = gateway.client(name)
        problems = [
            caller.get(f"/v1/users/{user_id}").json() for user_id in (known, unknown, "x", user_ids(admin)["ana"])
        ]
        assert {problem["status"] for problem in problems} == {403}
        assert len({problem["detail"] for problem in problems}) == 1


def test_users_cannot_give_themselves_a_role_or_a_scope(gateway: Gateway) -> None:
    """T20: role and scope fields in other requests are rejected, or ignored by the token endpoint."""
    admin, ana = gateway.client("adam"), gateway.client("ana")
    change = {"current_password": PASSWORD, "new_password": "walnut ferry quiet lamp"}
    for extra in ({"role": "admin"}, {"scopes": ["users:admin"]}, {"name": "adam"}, {"id": "x"}, {"totp": False}):
        assert ana.post("/v1/me/password", json={**change, **extra}).status_code == 422
    for field in ("scopes", "scope", "id", "name", "password_hash", "totp", "created_at"):
        response = admin.patch(f"/v1/users/{user_ids(admin)['ana']}", json={field: "users:admin"})
        assert (response.status_code, response.json()["code"]) == (422, "invalid_request")
    form = {"grant_type": "password", "username": "ana", "password": PASSWORD, "role": "admin"}
    token = gateway.post("/auth/token", data=form).json()["access_token"]
    me = gateway.get("/v1/me", headers={"Authorization": f"Bearer {token}"}).json()
    assert (me["role"], "users:admin" in me["scopes"]) == ("client", False)


def test_only_administrators_manage_users(gateway: Gateway) -> None:
    """T21: a client or operator gets a 403 that names the missing scope on every route for users."""
    user_id = user_ids(gateway.client("adam"))["ana"]
    requests = [
        ("GET", "/v1/users", None),
        ("POST", "/v1/users", {"name": "eve", "role": "admin", "password": PASSWORD}),
        ("POST", "/v1/users", {"nonsense": True}),
        ("GET", f"/v1/users/{user_id}", None),
        ("PATCH", f"/v1/users/{user_id}", {"role": "admin"}),
        ("PATCH", f"/v1/users/{user_id}", {"nonsense": True}),
    ]
    anonymous = httpx.Client(base_url=gateway.base_url, timeout=TIMEOUT_S)
    gateway.clients.append(anonymous)
    for name in ("ana", "olga"):
        caller = gateway.client(name)
        for method, path, body in requests:
            response = caller.request(method, path, json=body)
            assert (response.status_code, response.json()["code"]) == (403, "insufficient_scope")
            assert 'scope="users:admin"' in response.headers["www-authenticate"]
            assert anonymous.request(method, path, json=body).status_code == 401
    assert sorted(user_ids(gateway.client("adam"))) == ["adam", "ana", "olga"]
