"""`/v1/users`, and the users' own accounts at `/v1/me`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pyotp
import pytest
from pydantic import SecretStr
from starlette.testclient import TestClient

from api.commands.database import run_with_accounts
from api.settings import Settings
from auth.login.data_keys import new_data_key
from auth.principal import Role
from tests.api.conftest import Bearers

NEW = "walnut ferry quiet lamp"
BOB = {"name": "bob", "role": "client", "password": NEW}
Headers = dict[str, str]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Settings with a data key; the database also has the administrator `adam`."""
    run_with_accounts(settings, lambda accounts: accounts.add("adam", Role.ADMIN, "correct horse battery"))
    auth = settings.auth.model_copy(update={"data_key": SecretStr(new_data_key())})
    return settings.model_copy(update={"auth": auth})


@pytest.fixture
def admin(client: TestClient, log_in: Any) -> Headers:
    headers: Headers = log_in(client, "adam")
    return headers


def _find_id(client: TestClient, admin: Headers, name: str) -> str:
    (user,) = [user for user in client.get("/v1/users", headers=admin).json() if user["name"] == name]
    user_id: str = user["id"]
    return user_id


def _log_in(client: TestClient, name: str, password: str, **more: str) -> Any:
    return client.post("/auth/token", data={"grant_type": "password", "username": name, "password": password, **more})


def _list_events(client: TestClient, admin: Headers) -> list[tuple[str, str]]:
    """The audit log's entries about users, newest first; rejected requests appear there after a delay."""
    entries = client.get("/v1/audit", headers=admin).json()["entries"]
    return [(entry["event"], entry["outcome"]) for entry in entries if entry["event"] not in {"access", "token"}]


def test_an_administrator_creates_and_lists_users(client: TestClient, admin: Headers) -> None:
    """A created user is shown, listed and can log in; no response contains a password or its hash."""
    response = client.post("/v1/users", headers=admin, json={**BOB, "monthly_requests": 10})
    assert response.status_code == 201
    bob = response.json()
    assert (bob["name"], bob["role"], bob["disabled_at"], bob["totp"]) == ("bob", "client", None, False)
    assert (bob["monthly_requests"], bob["monthly_megapixels"]) == (10, None)
    assert response.headers["Location"] == f"/v1/users/{bob['id']}"
    assert client.get(response.headers["Location"], headers=admin).json() == bob
    listed = client.get("/v1/users", headers=admin)
    assert [user["name"] for user in listed.json()] == ["adam", "ana", "bob", "olga"]
    assert "argon2" not in listed.text
    assert NEW not in response.text
    assert _log_in(client, "bob", NEW).status_code == 200
    assert _list_events(client, admin)[0] == ("user", "created")


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"name": "ana"}, 409, "user_exists"),
        ({"name": "Bob"}, 422, "bad_user_name"),
        ({"name": "b\x00b"}, 422, "bad_user_name"),
        ({"password": "tooshort"}, 422, "password_refused"),
        ({"password": "password1234"}, 422, "password_refused"),
        ({"role": "superuser"}, 422, "invalid_request"),
        ({"scopes": ["predict"]}, 422, "invalid_request"),
        ({"monthly_requests": -1}, 422, "invalid_request"),
        ({"monthly_requests": True}, 422, "invalid_request"),
    ],
)
def test_invalid_users_are_rejected(
    shared_client: TestClient, shared_bearers: Bearers, changes: dict[str, Any], status: int, code: str
) -> None:
    """An invalid user is rejected with a code, and the response does not repeat the password."""
    refused = shared_client.post("/v1/users", headers=shared_bearers["root"], json={**BOB, **changes})
    assert (refused.status_code, refused.json()["code"]) == (status, code)
    assert str(changes.get("password", NEW)) not in refused.text


def test_a_role_change_ends_the_sessions(client: TestClient, admin: Headers, bearer: Headers) -> None:
    """A new role ends the user's tokens at once, and the next login has the scopes of the new role."""
    path = f"/v1/users/{_find_id(client, admin, 'ana')}"
    assert client.get("/v1/me", headers=bearer).status_code == 200
    assert client.patch(path, headers=admin, json={"role": "client"}).json()["role"] == "client"
    assert client.get("/v1/me", headers=bearer).status_code == 200
    assert client.patch(path, headers=admin, json={"role": "auditor"}).json()["role"] == "auditor"
    assert client.get("/v1/me", headers=bearer).status_code == 401
    assert _log_in(client, "ana", "correct horse battery").json()["scope"] == "audit:read metrics:read"


def test_disabling_and_enabling(client: TestClient, admin: Headers, bearer: Headers) -> None:
    """A disabled user cannot log in until enabled again; tokens from before stay invalid."""
    path = f"/v1/users/{_find_id(client, admin, 'ana')}"
    assert client.patch(path, headers=admin, json={"disabled": True}).json()["disabled_at"]
    assert client.get("/v1/me", headers=bearer).status_code == 401
    assert _log_in(client, "ana", "correct horse battery").status_code == 400
    assert client.patch(path, headers=admin, json={"disabled": False}).json()["disabled_at"] is None
    assert _log_in(client, "ana", "correct horse battery").status_code == 200
    assert client.get("/v1/me", headers=bearer).status_code == 401
    assert _list_events(client, admin)[:2] == [("user", "enabled"), ("user", "disabled")]


def test_an_administrator_sets_a_password(client: TestClient, admin: Headers, bearer: Headers) -> None:
    """A new password replaces the old one and ends the user's sessions; a rejected password changes nothing."""
    path = f"/v1/users/{_find_id(client, admin, 'ana')}"
    refused = client.patch(path, headers=admin, json={"password": "", "role": "admin"})
    assert (refused.status_code, refused.json()["code"]) == (422, "password_refused")
    assert client.get(path, headers=admin).json()["role"] == "client"
    assert client.patch(path, headers=admin, json={"password": NEW}).status_code == 200
    assert client.get("/v1/me", headers=bearer).status_code == 401
    assert _log_in(client, "ana", NEW).status_code == 200
    assert _log_in(client, "ana", "correct horse battery").status_code == 400


def test_quotas_are_set_and_removed(client: TestClient, admin: Headers, bearer: Headers) -> None:
    """A quota of null means unlimited; a change of quotas does not end the user's sessions."""
    path = f"/v1/users/{_find_id(client, admin, 'ana')}"
    quotas = {"monthly_requests": 5, "monthly_megapixels": 0}
    assert client.patch(path, headers=admin, json=quotas).json().items() >= quotas.items()
    lifted = client.patch(path, headers=admin, json={"monthly_requests": None}).json()
    assert (lifted["monthly_requests"], lifted["monthly_megapixels"]) == (None, 0)
    assert client.get("/v1/me", headers=bearer).status_code == 200


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"id": "x"},
        {"name": "eve"},
        {"scopes": ["users:admin"]},
        {"totp": False},
        {"created_at": "2020-01-01"},
        {"role": None},
        {"disabled": None},
        {"disabled": "yes"},
        {"password": None},
        {"role": "client", "password_hash": "x"},
    ],
)
def test_other_fields_are_rejected(shared_client: TestClient, shared_bearers: Bearers, change: dict[str, Any]) -> None:
    """A change with an unknown field, a forbidden null or no field at all changes nothing."""
    path = f"/v1/users/{_find_id(shared_client, shared_bearers['root'], 'olga')}"
    refused = shared_client.patch(path, headers=shared_bearers["root"], json=change)
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")
    assert shared_client.get(path, headers=shared_bearers["root"]).json()["role"] == "operator"


def test_the_last_administrator_cannot_be_removed(client: TestClient, admin: Headers) -> None:
    """The last enabled administrator can be neither disabled nor demoted, even together with a new password."""
    path = f"/v1/users/{_find_id(client, admin, 'adam')}"
    for change in ({"disabled": True}, {"role": "client"}, {"role": "auditor", "password": NEW}):
        refused = client.patch(path, headers=admin, json=change)
        assert (refused.status_code, refused.json()["code"]) == (409, "last_admin")
        assert "--force" not in refused.text
    assert client.get("/v1/me", headers=admin).json()["role"] == "admin"
    client.post("/v1/users", headers=admin, json={**BOB, "role": "admin"})
    assert client.patch(path, headers=admin, json={"role": "client"}).status_code == 200
    assert client.get("/v1/users", headers=admin).status_code == 401


def test_ids_in_upper_case(client: TestClient, admin: Headers) -> None:
    """The case of a user's id has no meaning."""
    path = f"/v1/users/{_find_id(client, admin, 'ana').upper()}"
    assert client.get(path, headers=admin).json()["name"] == "ana"
    assert client.patch(path, headers=admin, json={"role": "auditor"}).json()["role"] == "auditor"
    assert client.delete(path, headers=admin).status_code == 204


@pytest.mark.parametrize(
    "user_id", ["6d1f1f1e-0000-4000-8000-000000000000", "ana", "%00", "%ED%A0%80", "..%2f", "x" * 999]
)
def test_unknown_users(shared_client: TestClient, shared_bearers: Bearers, user_id: str) -> None:
    """An id that no user has gets 404, whatever characters it contains."""
    for response in (
        shared_client.get(f"/v1/users/{user_id}", headers=shared_bearers["root"]),
        shared_client.patch(f"/v1/users/{user_id}", headers=shared_bearers["root"], json={"disabled": True}),
    ):
        assert response.status_code == 404


def test_users_change_their_passwords(client: TestClient, bearer: Headers, log_in: Any) -> None:
    """A user sets a new password with the current one; the user's other sessions end, this one continues."""
    other = log_in(client)
    body = {"current_password": "correct horse battery", "new_password": NEW}
    wrong = client.post("/v1/me/password", headers=bearer, json={**body, "current_password": NEW})
    assert (wrong.status_code, wrong.json()["code"]) == (403, "bad_credentials")
    assert wrong.json()["detail"].startswith("The current password is wrong.")
    weak = client.post("/v1/me/password", headers=bearer, json={**body, "new_password": "password1234"})
    assert (weak.status_code, weak.json()["code"]) == (422, "password_refused")
    assert client.post("/v1/me/password", headers=bearer, json={**body, "role": "admin"}).status_code == 422
    assert client.get("/v1/me", headers=other).status_code == 200
    assert client.post("/v1/me/password", headers=bearer, json=body).status_code == 204
    assert client.get("/v1/me", headers=bearer).status_code == 200
    assert client.get("/v1/me", headers=other).status_code == 401
    assert _log_in(client, "ana", NEW).status_code == 200


def test_a_stolen_token_cannot_guess_the_password(client: TestClient, bearer: Headers) -> None:
    """Wrong current passwords are throttled like failed logins."""
    body = {"current_password": NEW, "new_password": NEW}
    statuses = [client.post("/v1/me/password", headers=bearer, json=body).status_code for _ in range(3)]
    while statuses[-1] == 403 and len(statuses) < 10:  # the wait of a second may be over before the next request
        statuses.append(client.post("/v1/me/password", headers=bearer, json=body).status_code)
    assert statuses == [403] * (len(statuses) - 1) + [429]
    assert len(statuses) > 3


def test_a_key_cannot_change_how_its_owner_logs_in(client: TestClient, bearer: Headers) -> None:
    """An API key can change neither its owner's password nor the one-time codes."""
    created = client.post("/v1/keys", headers=bearer, json={"name": "camera", "scopes": ["predict"]}).json()
    headers = {"X-API-Key": created["key"]}
    assert client.get("/v1/me", headers=headers).status_code == 200
    body = {"current_password": "correct horse battery", "new_password": NEW}
    for path, sent in (("password", body), ("totp", {"current_password": "x"}), ("totp/confirm", {"code": "1"})):
        refused = client.post(f"/v1/me/{path}", headers=headers, json=sent)
        assert (refused.status_code, refused.json()["code"]) == (403, "key_bound")
    refused = client.get("/v1/me/images", headers=headers)  # which changes nothing
    assert refused.json()["detail"].startswith("This request needs the token of a user, not an API key.")


def _enrol(client: TestClient, headers: Headers) -> tuple[pyotp.TOTP, str]:
    """Enable one-time codes; returns their generator and the code that was used."""
    response = client.post("/v1/me/totp", headers=headers, json={"current_password": "correct horse battery"})
    assert response.status_code == 201, response.text
    totp = pyotp.TOTP(response.json()["secret"])
    code = totp.now()
    confirmed = client.post("/v1/me/totp/confirm", headers=headers, json={"code": code})
    assert confirmed.status_code == 204, confirmed.text
    return totp, code


def test_enrolled_users_log_in_with_a_code(client: TestClient, admin: Headers) -> None:
    """After enrolment a login needs a code; only the correct password reveals that the code is missing or used."""
    totp, first = _enrol(client, admin)
    assert client.get("/v1/users", headers=admin).json()[0]["totp"] is True
    password = "correct horse battery"
    missing = _log_in(client, "adam", password)
    used = _log_in(client, "adam", password, totp=first)
    for refused in (missing, used):
        assert (refused.status_code, refused.json()["error"]) == (400, "invalid_grant")
        assert "one-time code" in refused.json()["error_description"]
    wrong = _log_in(client, "adam", "wrong horse battery", totp=totp.now())
    assert "one-time code" not in wrong.json()["error_description"]
    # The code of the next 30 seconds is also accepted.
    following = totp.at(datetime.now(UTC) + timedelta(seconds=30))
    assert _log_in(client, "adam", password, totp=following).status_code == 200
    assert client.post("/v1/me/totp", headers=admin, json={"current_password": password}).status_code == 409
    removed = client.request("DELETE", "/v1/me/totp", headers=admin, json={"code": "abcdef"})
    assert (removed.status_code, removed.json()["code"]) == (403, "bad_code")


def test_a_current_code_disables_codes(client: TestClient, bearer: Headers) -> None:
    """A user disables one-time codes with a current code; then logins need none."""
    totp, _ = _enrol(client, bearer)
    following = totp.at(datetime.now(UTC) + timedelta(seconds=30))
    assert client.request("DELETE", "/v1/me/totp", headers=bearer, json={"code": following}).status_code == 204
    assert _log_in(client, "ana", "correct horse battery").status_code == 200


def test_enrolment_needs_the_password_and_a_data_key(make_client: Any, settings: Settings, log_in: Any) -> None:
    """Enrolment fails without the password, and without AUTH__DATA_KEY."""
    client = make_client(auth=settings.auth.model_copy(update={"data_key": None}))
    bearer = log_in(client)
    wrong = client.post("/v1/me/totp", headers=bearer, json={"current_password": "wrong horse battery"})
    assert (wrong.status_code, wrong.json()["code"]) == (403, "bad_credentials")
    refused = client.post("/v1/me/totp", headers=bearer, json={"current_password": "correct horse battery"})
    assert (refused.status_code, refused.json()["code"]) == (409, "totp_conflict")
    unknown = client.post("/v1/me/totp/confirm", headers=bearer, json={"code": "123456"})
    assert (unknown.status_code, unknown.json()["code"]) == (409, "totp_conflict")
