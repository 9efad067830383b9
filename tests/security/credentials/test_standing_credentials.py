"""Threat T44: API keys, OAuth clients and certificates cannot change credentials or roles, on a running gateway."""

from __future__ import annotations

import json
import ssl
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from auth.login.data_keys import new_data_key
from tests.support.certificates import make_authority
from tests.support.gateway import PASSWORD, TIMEOUT_S, Gateway, running_gateway
from tests.support.polling import wait_until

NEW_PASSWORD = "walnut ferry quiet lamp"
SUBJECT = "CN=root,O=Example"
KINDS = ("key", "client", "certificate")
# Every route that can change how somebody logs in, or what somebody may do, with a body that would.
CHANGES: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", "/v1/users", {"name": "eve", "role": "admin", "password": NEW_PASSWORD}),
    ("PATCH", "/v1/users/{user_id}", {"password": NEW_PASSWORD}),
    ("PATCH", "/v1/users/{user_id}", {"role": "client"}),
    ("PATCH", "/v1/users/{user_id}", {"disabled": False}),
    ("PATCH", "/v1/users/{user_id}", {"monthly_requests": 5, "password": NEW_PASSWORD}),
    ("DELETE", "/v1/users/{user_id}", {}),
    ("POST", "/v1/me/password", {"current_password": PASSWORD, "new_password": NEW_PASSWORD}),
    ("POST", "/v1/me/totp", {"current_password": PASSWORD}),
    ("POST", "/v1/me/totp/confirm", {"code": "123456"}),
    ("DELETE", "/v1/me/totp", {"code": "123456"}),
    ("PUT", "/v1/me/images", {"keep": True}),
    ("PATCH", "/v1/users/{user_id}", {"keep_images": True}),
]
# Routes that change something else, and why a stolen key gains nothing there.
OTHER_CHANGES = {
    ("POST", "/auth/token"): "takes a password, a refresh token or a client's secret",
    ("POST", "/auth/revoke"): "only ends sessions and tokens",
    ("POST", "/auth/introspect"): "changes nothing",
    ("POST", "/v1/predictions"): "predicts",
    ("POST", "/predict-land-use"): "predicts",
    ("POST", "/v2/models/{model}/infer"): "predicts",
    ("POST", "/v2/models/{model}/versions/{version}/infer"): "predicts",
    ("POST", "/v1/keys"): "has at most the key's own scopes and life, and names its parent: see T45",
    ("POST", "/v1/keys/{key_id}/rotate"): "rotates only the key itself",
    ("DELETE", "/v1/keys/{key_id}"): "only revokes",
    ("POST", "/v1/predictions/{prediction_id}/label"): "labels a prediction: the record names its sender, see T58",
    ("POST", "/v1/models/{name}/aliases/{alias}"): "chooses a version; needs models:write, and is on record: see T55",
}


@dataclass(frozen=True)
class Administrator:
    """A gateway, its administrator `root`, and the headers of a credential of each kind with all scopes."""

    gateway: Gateway
    user_id: str
    headers: dict[str, dict[str, str]]

    def send(self, kind: str, method: str, path: str, body: dict[str, Any]) -> httpx.Response:
        url = f"{self.gateway.base_url}{path.format(user_id=self.user_id)}"
        return httpx.request(method, url, headers=self.headers[kind], json=body, timeout=TIMEOUT_S)


@pytest.fixture(scope="module")
def admin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Administrator]:
    folder = tmp_path_factory.mktemp("standing")
    settings = {
        "AUTH__CLIENT_CERTIFICATES": json.dumps({SUBJECT: "root"}),
        "AUTH__DATA_KEY": new_data_key(),
        "LIMITS__TRUSTED_PROXIES": "127.0.0.1",
        "MODEL__URL": "stub://",
    }
    with running_gateway(folder, **settings) as gateway:
        gateway.add_user("root", "admin")
        login = {"Authorization": f"Bearer {gateway.token('root')}"}
        me = gateway.get("/v1/me", headers=login).json()
        key = gateway.post("/v1/keys", headers=login, json={"name": "all", "scopes": me["scopes"]}).json()["key"]
        client = json.loads(gateway.run("clients", "add", "all", "--scope", " ".join(me["scopes"]), "--json").stdout)
        secret = client["client_id"], client["client_secret"]
        grant = gateway.post("/auth/token", data={"grant_type": "client_credentials"}, auth=secret).json()
        certificate, _ = make_authority(folder / "ca").issue(SUBJECT)
        der = ssl.PEM_cert_to_DER_cert(Path(certificate).read_text())
        headers = {
            "login": login,
            "key": {"X-API-Key": key},
            "client": {"Authorization": f"Bearer {grant['access_token']}"},
            "certificate": {"Client-Cert": f":{b64encode(der).decode()}:"},
        }
        yield Administrator(gateway, me["subject"], headers)


def test_every_route_that_changes_something_is_listed(admin: Administrator) -> None:
    """Each route with a method other than GET either requires a login, or is listed with why it need not."""
    paths = admin.gateway.get("/openapi.json").json()["paths"]
    changing = {(method.upper(), path) for path, methods in paths.items() for method in methods if method != "get"}
    assert changing == {(method, path) for method, path, _ in CHANGES} | OTHER_CHANGES.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_credentials_and_roles_change_only_after_a_login(admin: Administrator, kind: str) -> None:
    """Even with all scopes, a key, a client and a certificate get a 403 with a stable code on each of these routes."""
    before = admin.gateway.get("/v1/users", headers=admin.headers["login"]).json()
    for method, path, body in CHANGES:
        refused = admin.send(kind, method, path, body)
        expected = {"key": "key_bound", "client": "login_required", "certificate": "login_required"}[kind]
        if kind == "client" and path.startswith("/v1/me"):
            expected = "no_account"
        assert (refused.status_code, refused.json()["code"]) == (403, expected), (method, path)
    assert admin.gateway.get("/v1/users", headers=admin.headers["login"]).json() == before
    assert admin.gateway.log_in("root").status_code == 200


def test_a_certificate_makes_no_key(admin: Administrator) -> None:
    """A certificate can neither create nor rotate a key, because the key would outlive it; it can revoke one."""
    created = admin.send("login", "POST", "/v1/keys", {"name": "maps"}).json()
    for path, body in (("/v1/keys", {"name": "more"}), (f"/v1/keys/{created['id']}/rotate", {})):
        refused = admin.send("certificate", "POST", path, body)
        assert (refused.status_code, refused.json()["code"]) == (403, "login_required")
    assert admin.send("certificate", "DELETE", f"/v1/keys/{created['id']}", {}).status_code == 204


@pytest.mark.parametrize("kind", KINDS)
def test_administration_that_only_limits_needs_no_login(admin: Administrator, kind: str) -> None:
    """A key, a client and a certificate with `users:admin` can read users, set quotas and disable users."""
    assert admin.gateway.get("/v1/users", headers=admin.headers[kind]).status_code == 200
    admin.gateway.add_user(f"bob-{kind}")
    users = admin.gateway.get("/v1/users", headers=admin.headers[kind]).json()
    (bob,) = [user["id"] for user in users if user["name"] == f"bob-{kind}"]
    limited = admin.send(kind, "PATCH", f"/v1/users/{bob}", {"monthly_requests": 5, "disabled": True})
    assert (limited.status_code, limited.json()["monthly_requests"]) == (200, 5)
    assert limited.json()["disabled_at"]


def test_a_login_changes_credentials_and_roles(admin: Administrator) -> None:
    """An administrator who has logged in creates users and changes roles and passwords."""
    body = {"name": "finn", "role": "client", "password": NEW_PASSWORD}
    created = admin.send("login", "POST", "/v1/users", body)
    assert created.status_code == 201, created.text
    changed = admin.send("login", "PATCH", f"/v1/users/{created.json()['id']}", {"role": "operator"})
    assert (changed.status_code, changed.json()["role"]) == (200, "operator")


@pytest.mark.parametrize("kind", KINDS)
def test_rejected_changes_are_in_the_audit_log(admin: Administrator, kind: str) -> None:
    """A rejected change is soon recorded, with the code and, for a key, the key's id."""
    code = admin.send(kind, "POST", "/v1/users", CHANGES[0][2]).json()["code"]

    def is_recorded() -> bool:
        read = admin.gateway.get("/v1/audit", params={"event": "access"}, headers=admin.headers["login"])
        entries = read.json()["entries"]
        details = [entry["detail"] for entry in entries if entry["outcome"] == "forbidden"]
        return any(detail.get("code") == code and ("key" in detail) == (kind == "key") for detail in details)

    wait_until(is_recorded)
