"""Refresh, client credentials, revocation, introspection, metadata and keys, over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.commands.database import run_with_engine
from api.settings import Settings
from auth.clients import ClientStore
from auth.principal import Scope
from auth.tokens.jws import read_header
from tests.support.polling import wait_until

MakeClient = Callable[..., TestClient]


@pytest.fixture
def service(settings: Settings) -> tuple[str, str]:
    """The id and the secret of a client that may predict."""
    added = run_with_engine(settings, lambda engine: ClientStore(engine).add("maps", {Scope.PREDICT}))
    return added[0].id, added[1]


@pytest.fixture
def log_in_form(password: str) -> dict[str, str]:
    return {"grant_type": "password", "username": "ana", "password": password}


def post(client: TestClient, path: str, form: dict[str, str], **more: Any) -> Any:
    return client.post(path, data=form, **more)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_a_refresh_token_is_exchanged_for_a_new_pair(client: TestClient, log_in_form: dict[str, str]) -> None:
    """A refresh returns a working access token and the next refresh token."""
    first = post(client, "/auth/token", log_in_form).json()
    second = post(client, "/auth/token", {"grant_type": "refresh_token", "refresh_token": first["refresh_token"]})
    assert second.headers["cache-control"] == "no-store"
    assert second.json()["refresh_token"] != first["refresh_token"]
    assert client.get("/v1/me", headers=bearer(second.json()["access_token"])).json()["name"] == "ana"


def test_a_refresh_can_narrow_the_scope_but_not_widen_it(client: TestClient, log_in_form: dict[str, str]) -> None:
    """A refresh may request fewer scopes for one access token, but none that the login lacks."""
    first = post(client, "/auth/token", {**log_in_form, "scope": "predict keys:write"}).json()
    form = {"grant_type": "refresh_token", "refresh_token": first["refresh_token"], "scope": "predict"}
    second = post(client, "/auth/token", form).json()
    assert second["scope"] == "predict"
    form = {**form, "refresh_token": second["refresh_token"], "scope": "predictions:read"}
    refused = post(client, "/auth/token", form)
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_scope")


def test_a_service_logs_in_as_itself(client: TestClient, service: tuple[str, str]) -> None:
    """A client authenticates by HTTP Basic or form fields, and gets its scopes without a refresh token."""
    client_id, secret = service
    form = {"grant_type": "client_credentials"}
    for response in (
        post(client, "/auth/token", form, auth=service),
        post(client, "/auth/token", {**form, "client_id": client_id, "client_secret": secret}),
    ):
        assert response.status_code == 200, response.text
        assert set(response.json()) == {"access_token", "token_type", "expires_in", "scope"}
        me = client.get("/v1/me", headers=bearer(response.json()["access_token"])).json()
        assert (me["subject"], me["role"], me["scopes"]) == (client_id, None, ["predict"])


@pytest.mark.parametrize("changes", [{"client_secret": "wrong"}, {"client_id": "unknown"}, {"client_id": ""}])
def test_an_unknown_service_is_rejected(client: TestClient, service: tuple[str, str], changes: dict[str, str]) -> None:
    """A wrong client id or secret gets 401 invalid_client with a Basic challenge."""
    form = {"grant_type": "client_credentials", "client_id": service[0], "client_secret": service[1], **changes}
    response = post(client, "/auth/token", form)
    assert (response.status_code, response.json()["error"]) == (401, "invalid_client")
    assert response.headers["www-authenticate"].startswith("Basic")


@pytest.mark.parametrize("header", ["Basic", "Basic !", "Basic bm9jb2xvbg==", "Basic /////w==", "Basic ÿ"])
def test_a_malformed_basic_header_is_rejected(client: TestClient, header: str) -> None:
    """A Basic header without a readable id and secret gets 401 invalid_client."""
    headers = {"Authorization": header.encode("latin-1")}
    response = post(client, "/auth/token", {"grant_type": "client_credentials"}, headers=headers)
    assert (response.status_code, response.json()["error"]) == (401, "invalid_client")


def test_the_password_grant_can_be_switched_off(
    make_client: MakeClient, settings: Settings, log_in_form: dict[str, str]
) -> None:
    """With AUTH__PASSWORD_GRANT=false the grant is rejected, and the metadata does not list it."""
    client = make_client(auth=settings.auth.model_copy(update={"password_grant": False}))
    response = post(client, "/auth/token", log_in_form)
    assert (response.status_code, response.json()["error"]) == (400, "unsupported_grant_type")
    assert "password" not in client.get("/.well-known/oauth-authorization-server").json()["grant_types_supported"]


def test_a_revoked_access_token_is_rejected_at_once(client: TestClient, log_in_form: dict[str, str]) -> None:
    """An access token that its owner revokes is rejected at once, but its session continues."""
    pair = post(client, "/auth/token", log_in_form).json()
    headers = bearer(pair["access_token"])
    assert client.get("/v1/me", headers=headers).status_code == 200
    assert post(client, "/auth/revoke", {"token": pair["access_token"]}, headers=headers).status_code == 200
    assert client.get("/v1/me", headers=headers).status_code == 401
    again = {"grant_type": "refresh_token", "refresh_token": pair["refresh_token"]}
    assert post(client, "/auth/token", again).status_code == 200


def test_revoking_the_refresh_token_logs_out(client: TestClient, log_in_form: dict[str, str]) -> None:
    """The first-party client ends a session with its refresh token alone; the access token ends with it."""
    pair = post(client, "/auth/token", log_in_form).json()
    form = {"token": pair["refresh_token"], "client_id": "atalaya-first-party"}
    assert post(client, "/auth/revoke", form).status_code == 200
    assert client.get("/v1/me", headers=bearer(pair["access_token"])).status_code == 401
    again = {"grant_type": "refresh_token", "refresh_token": pair["refresh_token"]}
    assert post(client, "/auth/token", again).json()["error"] == "invalid_grant"


def test_revoking_a_used_refresh_token_logs_out(client: TestClient, log_in_form: dict[str, str]) -> None:
    """A thief who has exchanged a stolen refresh token loses the session when the owner revokes that token."""
    own = post(client, "/auth/token", log_in_form).json()["refresh_token"]
    stolen = post(client, "/auth/token", {"grant_type": "refresh_token", "refresh_token": own}).json()
    form = {"token": own, "client_id": "atalaya-first-party"}
    assert [post(client, "/auth/revoke", form).status_code for _ in range(2)] == [200, 200]
    assert client.get("/v1/me", headers=bearer(stolen["access_token"])).status_code == 401
    again = {"grant_type": "refresh_token", "refresh_token": stolen["refresh_token"]}
    assert post(client, "/auth/token", again).json()["error"] == "invalid_grant"


@pytest.mark.parametrize("token", ["unknown", "atr_unknown", "a.b.c"])
def test_revoking_an_unknown_token_is_no_error(client: TestClient, service: tuple[str, str], token: str) -> None:
    """Revoking an unknown token returns 200, as RFC 7009 requires."""
    assert post(client, "/auth/revoke", {"token": token}, auth=service).status_code == 200


def test_a_client_cannot_revoke_a_user_s_token(
    client: TestClient, service: tuple[str, str], log_in_form: dict[str, str]
) -> None:
    """A client can revoke only tokens that were issued to it."""
    pair = post(client, "/auth/token", log_in_form).json()
    for token in (pair["access_token"], pair["refresh_token"]):
        response = post(client, "/auth/revoke", {"token": token}, auth=service)
        assert (response.status_code, response.json()["error"]) == (400, "unauthorized_client")
    assert client.get("/v1/me", headers=bearer(pair["access_token"])).status_code == 200


@pytest.mark.parametrize("path", ["/auth/revoke", "/auth/introspect"])
def test_token_endpoints_require_authentication(client: TestClient, path: str) -> None:
    """Revocation and introspection reject unauthenticated requests."""
    response = post(client, path, {"token": "x"})
    assert (response.status_code, response.json()["error"]) == (401, "invalid_client")


def test_introspection_describes_tokens_to_a_client(
    client: TestClient, service: tuple[str, str], log_in_form: dict[str, str], settings: Settings
) -> None:
    """A client may inspect access tokens and refresh tokens."""
    pair = post(client, "/auth/token", log_in_form).json()
    access = post(client, "/auth/introspect", {"token": pair["access_token"]}, auth=service).json()
    assert access["active"] is True
    assert (access["username"], access["token_type"], access["iss"]) == ("ana", "Bearer", settings.issuer)
    assert access["scope"] == pair["scope"]
    refresh = post(client, "/auth/introspect", {"token": pair["refresh_token"]}, auth=service).json()
    assert (refresh["active"], refresh["sub"]) == (True, access["sub"])


def test_introspection_of_invalid_tokens(
    client: TestClient, service: tuple[str, str], log_in_form: dict[str, str]
) -> None:
    """An unknown, used or revoked token is inactive, and the response says nothing else."""
    pair = post(client, "/auth/token", log_in_form).json()
    post(client, "/auth/token", {"grant_type": "refresh_token", "refresh_token": pair["refresh_token"]})
    post(client, "/auth/revoke", {"token": pair["access_token"]}, headers=bearer(pair["access_token"]))
    for token in ("unknown", "atr_unknown", pair["refresh_token"], pair["access_token"]):
        response = post(client, "/auth/introspect", {"token": token}, auth=service)
        assert (response.status_code, response.json()) == (200, {"active": False})


def test_a_user_may_inspect_own_tokens_only(client: TestClient, log_in_form: dict[str, str]) -> None:
    """A user may inspect the user's own tokens; other users' tokens appear inactive."""
    own = post(client, "/auth/token", log_in_form).json()["access_token"]
    other = post(client, "/auth/token", {**log_in_form, "username": "olga"}).json()["access_token"]
    assert post(client, "/auth/introspect", {"token": own}, headers=bearer(own)).json()["active"] is True
    assert post(client, "/auth/introspect", {"token": other}, headers=bearer(own)).json() == {"active": False}


def test_the_published_key_is_the_one_that_signed(client: TestClient, log_in_form: dict[str, str]) -> None:
    """The key set contains the key that the token's header names, and may be cached for five seconds."""
    token = post(client, "/auth/token", log_in_form).json()["access_token"]
    response = client.get("/.well-known/jwks.json")
    assert response.headers["cache-control"] == "public, max-age=5"
    assert read_header(token)["kid"] in {key["kid"] for key in response.json()["keys"]}


def test_the_metadata_lists_existing_endpoints(client: TestClient, settings: Settings) -> None:
    """Every endpoint in the metadata document exists below the issuer's URL."""
    document = client.get("/.well-known/oauth-authorization-server").json()
    assert document["issuer"] == settings.issuer
    for name, url in document.items():
        if name.endswith(("_endpoint", "_uri")):
            assert url.startswith(f"{settings.issuer}/")
            path = url.removeprefix(settings.issuer)
            assert client.post(path).status_code != 404, name


def test_a_disabled_client_s_token_is_rejected(
    client: TestClient, service: tuple[str, str], settings: Settings
) -> None:
    """When another process disables a client, the client's tokens are rejected."""
    token = post(client, "/auth/token", {"grant_type": "client_credentials"}, auth=service).json()["access_token"]
    run_with_engine(settings, lambda engine: ClientStore(engine).disable("maps"))
    wait_until(lambda: client.get("/v1/me", headers=bearer(token)).status_code == 401)


@pytest.mark.parametrize("path", ["/auth/token", "/auth/revoke", "/auth/introspect"])
def test_all_errors_have_the_form_of_the_rfc(client: TestClient, path: str) -> None:
    """Errors that the endpoints themselves do not handle have the form of RFC 6749, too."""
    method = client.get(path)
    assert (method.status_code, method.headers["allow"]) == (405, "POST")
    host = post(client, path, {}, headers={"Host": "evil.example"})
    assert host.status_code == 421
    for response in (method, host):
        assert response.headers["content-type"] == "application/json"
        assert (set(response.json()), response.json()["error"]) == ({"error", "error_description"}, "invalid_request")
    assert client.post(f"{path}/").json()["code"] == "not_found"


def test_an_unexpected_error_has_the_form_of_the_rfc(
    make_client: MakeClient, log_in_form: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an unexpected error, the endpoints respond with server_error."""

    def fail(*_: Any) -> None:
        raise RuntimeError

    client = make_client(raise_errors=False)
    monkeypatch.setattr("api.routes.auth.list_grant_types", fail)
    response = post(client, "/auth/token", log_in_form)
    assert (response.status_code, response.json()["error"]) == (500, "server_error")


@pytest.mark.parametrize("path", ["/auth/token", "/auth/revoke", "/auth/introspect"])
def test_two_clients_are_refused(client: TestClient, service: tuple[str, str], path: str) -> None:
    """The field client_id may repeat the client of HTTP Basic, but not name another one."""
    form = {"grant_type": "client_credentials", "token": "unknown"}
    assert post(client, path, {**form, "client_id": service[0]}, auth=service).status_code == 200
    for other in ("other", "atalaya-first-party"):
        refused = post(client, path, {**form, "client_id": other}, auth=service)
        assert (refused.status_code, refused.json()["error"]) == (400, "invalid_request")
