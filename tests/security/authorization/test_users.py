"""Threats T12, T19, T20 and T21 for users, on a running gateway."""

from __future__ import annotations

from collections.abc import Callable
from uuid import uuid4

import httpx
import pytest

from tests.support.gateway import PASSWORD, TIMEOUT_S, Gateway


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
    assert long not in gateway.log()


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
    """T21: a client's or an operator's token on any route for users is a 403 that names the missing scope."""
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
