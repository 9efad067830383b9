"""Lines 12 and 19 to 21 for users, on a running gateway."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import httpx
import pytest

PASSWORD = "correct horse battery"


@pytest.fixture
def gateway(new_gateway: Callable[..., Any]) -> Any:
    """A gateway that also has the administrator `adam`."""
    gateway = new_gateway(MODEL__URL="stub://")
    added = gateway.run("users", "add", "adam", "--role", "admin", "--password-stdin", stdin=PASSWORD)
    assert added.returncode == 0, added.stderr
    return gateway


def log_in(gateway: Any, name: str, password: str) -> int:
    form = {"grant_type": "password", "username": name, "password": password}
    return httpx.post(f"{gateway.base_url}/auth/token", data=form, timeout=30).status_code


def ids(admin: httpx.Client) -> dict[str, str]:
    return {user["name"]: user["id"] for user in admin.get("/v1/users").json()}


def test_line_12_passwords_are_long_unusual_and_never_cut(gateway: Any) -> None:
    """Twelve characters are the least and 128 count to the last; common ones are refused wherever one is set."""
    admin, ana = gateway.client("adam"), gateway.client("ana")
    path = f"/v1/users/{ids(admin)['olga']}"
    for refused in ("", "elevenchars", "password1234", "PASSWORD1234", "aaaaaaaaaaaaaaaa", "qwertyuiop12", "x" * 1025):
        for answer in (
            admin.post("/v1/users", json={"name": "bob", "role": "client", "password": refused}),
            admin.patch(path, json={"password": refused}),
            ana.post("/v1/me/password", json={"current_password": PASSWORD, "new_password": refused}),
        ):
            assert (answer.status_code, answer.json()["code"]) == (422, "password_refused")
            assert not refused or refused not in answer.text
    long = "".join(chr(0x21 + index * 7 % 94) for index in range(128))
    assert admin.patch(path, json={"password": long}).status_code == 200
    assert log_in(gateway, "olga", long) == 200
    assert log_in(gateway, "olga", long[:-1]) == 400
    assert log_in(gateway, "olga", f"{long[:-1]}~") == 400
    assert log_in(gateway, "olga", long) == 200
    assert admin.patch(path, json={"password": "twelve chars"}).status_code == 200
    assert long not in gateway.log()


def test_line_19_another_user_is_not_to_be_found(gateway: Any) -> None:
    """Who may not see users cannot tell those there are from those there are not; who may gets a 404 for none."""
    admin = gateway.client("adam")
    known, unknown = ids(admin)["olga"], str(uuid4())
    answer = admin.get(f"/v1/users/{unknown}")
    assert (answer.status_code, answer.json()["code"]) == (404, "user_not_found")
    for name in ("ana", "olga"):
        caller = gateway.client(name)
        seen = [caller.get(f"/v1/users/{user_id}").json() for user_id in (known, unknown, "x", ids(admin)["ana"])]
        assert {answer["status"] for answer in seen} == {403}
        assert len({answer["detail"] for answer in seen}) == 1


def test_line_20_nobody_gives_themselves_a_role_or_a_scope(gateway: Any) -> None:
    """Role and scope fields are refused where they do not belong, and change nothing."""
    admin, ana = gateway.client("adam"), gateway.client("ana")
    change = {"current_password": PASSWORD, "new_password": "walnut ferry quiet lamp"}
    for more in ({"role": "admin"}, {"scopes": ["users:admin"]}, {"name": "adam"}, {"id": "x"}, {"totp": False}):
        assert ana.post("/v1/me/password", json={**change, **more}).status_code == 422
    for field in ("scopes", "scope", "id", "name", "password_hash", "totp", "created_at"):
        answer = admin.patch(f"/v1/users/{ids(admin)['ana']}", json={field: "users:admin"})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    form = {"grant_type": "password", "username": "ana", "password": PASSWORD, "role": "admin"}
    token = httpx.post(f"{gateway.base_url}/auth/token", data=form).json()["access_token"]
    seen = httpx.get(f"{gateway.base_url}/v1/me", headers={"Authorization": f"Bearer {token}"}).json()
    assert (seen["role"], "users:admin" in seen["scopes"]) == ("client", False)


def test_line_21_only_administrators_administer(gateway: Any) -> None:
    """A client's or an operator's token on any route of users is a 403 that names the scope, whatever is asked."""
    user_id = ids(gateway.client("adam"))["ana"]
    requests = [
        ("GET", "/v1/users", None),
        ("POST", "/v1/users", {"name": "eve", "role": "admin", "password": PASSWORD}),
        ("POST", "/v1/users", {"nonsense": True}),
        ("GET", f"/v1/users/{user_id}", None),
        ("PATCH", f"/v1/users/{user_id}", {"role": "admin"}),
        ("PATCH", f"/v1/users/{user_id}", {"nonsense": True}),
    ]
    for name in ("ana", "olga"):
        caller = gateway.client(name)
        for method, path, body in requests:
            answer = caller.request(method, path, json=body)
            assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope")
            assert 'scope="users:admin"' in answer.headers["www-authenticate"]
            assert httpx.request(method, f"{gateway.base_url}{path}", json=body).status_code == 401
    assert sorted(ids(gateway.client("adam"))) == ["adam", "ana", "olga"]
