"""Refresh, client credentials, revocation, introspection, metadata and keys, over HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.commands.database import run_with_engine
from api.settings import Settings
from auth.clients import ClientStore
from auth.principal import Scope
from auth.tokens.jws import read_header

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


def test_a_refresh_brings_a_new_pair(client: TestClient, log_in_form: dict[str, str]) -> None:
    """A refresh token is exchanged for an access token that works and for its own successor."""
    first = post(client, "/auth/token", log_in_form).json()
    second = post(client, "/auth/token", {"grant_type": "refresh_token", "refresh_token": first["refresh_token"]})
    assert second.headers["cache-control"] == "no-store"
    assert second.json()["refresh_token"] != first["refresh_token"]
    assert client.get("/v1/me", headers=bearer(second.json()["access_token"])).json()["name"] == "ana"


def test_a_refresh_can_ask_for_less_and_not_for_more(client: TestClient, log_in_form: dict[str, str]) -> None:
    """A refresh narrows the scope of one access token; what the log-in did not have it cannot have."""
    first = post(client, "/auth/token", {**log_in_form, "scope": "predict keys:write"}).json()
    form = {"grant_type": "refresh_token", "refresh_token": first["refresh_token"], "scope": "predict"}
    second = post(client, "/auth/token", form).json()
    assert second["scope"] == "predict"
    form = {**form, "refresh_token": second["refresh_token"], "scope": "predictions:read"}
    refused = post(client, "/auth/token", form)
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_scope")


def test_a_service_logs_in_as_itself(client: TestClient, service: tuple[str, str]) -> None:
    """By HTTP Basic and by form fields, with its scopes and without a refresh token."""
    client_id, secret = service
    form = {"grant_type": "client_credentials"}
    for answer in (
        post(client, "/auth/token", form, auth=service),
        post(client, "/auth/token", {**form, "client_id": client_id, "client_secret": secret}),
    ):
        assert answer.status_code == 200, answer.text
        assert set(answer.json()) == {"access_token", "token_type", "expires_in", "scope"}
        me = client.get("/v1/me", headers=bearer(answer.json()["access_token"])).json()
        assert (me["subject"], me["role"], me["scopes"]) == (client_id, None, ["predict"])


@pytest.mark.parametrize("changes", [{"client_secret": "wrong"}, {"client_id": "nobody"}, {"client_id": ""}])
def test_a_service_must_be_known(client: TestClient, service: tuple[str, str], changes: dict[str, str]) -> None:
    """A wrong client is a 401 invalid_client with a Basic challenge, whatever is wrong about it."""
    form = {"grant_type": "client_credentials", "client_id": service[0], "client_secret": service[1], **changes}
    answer = post(client, "/auth/token", form)
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
    assert answer.headers["www-authenticate"].startswith("Basic")


@pytest.mark.parametrize("header", ["Basic", "Basic !", "Basic bm9jb2xvbg==", "Basic /////w==", "Basic ÿ"])
def test_a_basic_header_that_is_none_is_refused(client: TestClient, header: str) -> None:
    """What cannot be read as an id and a secret is a wrong client."""
    headers = {"Authorization": header.encode("latin-1")}
    answer = post(client, "/auth/token", {"grant_type": "client_credentials"}, headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


def test_the_password_grant_can_be_switched_off(
    make_client: MakeClient, settings: Settings, log_in_form: dict[str, str]
) -> None:
    """With AUTH__PASSWORD_GRANT=false it is not offered, and the metadata does not name it."""
    client = make_client(auth=settings.auth.model_copy(update={"password_grant": False}))
    answer = post(client, "/auth/token", log_in_form)
    assert (answer.status_code, answer.json()["error"]) == (400, "unsupported_grant_type")
    assert "password" not in client.get("/.well-known/oauth-authorization-server").json()["grant_types_supported"]


def test_a_revoked_access_token_is_refused_at_once(client: TestClient, log_in_form: dict[str, str]) -> None:
    """Its owner revokes one access token; the session goes on."""
    pair = post(client, "/auth/token", log_in_form).json()
    headers = bearer(pair["access_token"])
    assert client.get("/v1/me", headers=headers).status_code == 200
    assert post(client, "/auth/revoke", {"token": pair["access_token"]}, headers=headers).status_code == 200
    assert client.get("/v1/me", headers=headers).status_code == 401
    again = {"grant_type": "refresh_token", "refresh_token": pair["refresh_token"]}
    assert post(client, "/auth/token", again).status_code == 200


def test_revoking_the_refresh_token_logs_out(client: TestClient, log_in_form: dict[str, str]) -> None:
    """The first-party client ends a log-in by its refresh token alone; its access token ends with it."""
    pair = post(client, "/auth/token", log_in_form).json()
    form = {"token": pair["refresh_token"], "client_id": "atalaya-first-party"}
    assert post(client, "/auth/revoke", form).status_code == 200
    assert client.get("/v1/me", headers=bearer(pair["access_token"])).status_code == 401
    again = {"grant_type": "refresh_token", "refresh_token": pair["refresh_token"]}
    assert post(client, "/auth/token", again).json()["error"] == "invalid_grant"


@pytest.mark.parametrize("token", ["unknown", "atr_unknown", "a.b.c"])
def test_revoking_an_unknown_token_is_no_error(client: TestClient, service: tuple[str, str], token: str) -> None:
    """RFC 7009: an unknown token is answered with 200."""
    assert post(client, "/auth/revoke", {"token": token}, auth=service).status_code == 200


def test_another_s_token_cannot_be_revoked(
    client: TestClient, service: tuple[str, str], log_in_form: dict[str, str]
) -> None:
    """A client revokes its own tokens, and no user's."""
    pair = post(client, "/auth/token", log_in_form).json()
    for token in (pair["access_token"], pair["refresh_token"]):
        answer = post(client, "/auth/revoke", {"token": token}, auth=service)
        assert (answer.status_code, answer.json()["error"]) == (400, "unauthorized_client")
    assert client.get("/v1/me", headers=bearer(pair["access_token"])).status_code == 200


@pytest.mark.parametrize("path", ["/auth/revoke", "/auth/introspect"])
def test_strangers_learn_nothing(client: TestClient, path: str) -> None:
    """Both endpoints need a login."""
    answer = post(client, path, {"token": "x"})
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


def test_introspection_tells_a_client(
    client: TestClient, service: tuple[str, str], log_in_form: dict[str, str], settings: Settings
) -> None:
    """A client learns what a token stands for, of either kind."""
    pair = post(client, "/auth/token", log_in_form).json()
    access = post(client, "/auth/introspect", {"token": pair["access_token"]}, auth=service).json()
    assert access["active"] is True
    assert (access["username"], access["token_type"], access["iss"]) == ("ana", "Bearer", settings.issuer)
    assert access["scope"] == pair["scope"]
    refresh = post(client, "/auth/introspect", {"token": pair["refresh_token"]}, auth=service).json()
    assert (refresh["active"], refresh["sub"]) == (True, access["sub"])


def test_introspection_of_what_does_not_count(
    client: TestClient, service: tuple[str, str], log_in_form: dict[str, str]
) -> None:
    """An unknown, used or revoked token is inactive, and nothing more is said."""
    pair = post(client, "/auth/token", log_in_form).json()
    post(client, "/auth/token", {"grant_type": "refresh_token", "refresh_token": pair["refresh_token"]})
    post(client, "/auth/revoke", {"token": pair["access_token"]}, headers=bearer(pair["access_token"]))
    for token in ("unknown", "atr_unknown", pair["refresh_token"], pair["access_token"]):
        answer = post(client, "/auth/introspect", {"token": token}, auth=service)
        assert (answer.status_code, answer.json()) == (200, {"active": False})


def test_a_user_learns_of_own_tokens_only(client: TestClient, log_in_form: dict[str, str]) -> None:
    """A user who asks with a token sees the user's own tokens; others' are inactive to that user."""
    own = post(client, "/auth/token", log_in_form).json()["access_token"]
    other = post(client, "/auth/token", {**log_in_form, "username": "olga"}).json()["access_token"]
    assert post(client, "/auth/introspect", {"token": own}, headers=bearer(own)).json()["active"] is True
    assert post(client, "/auth/introspect", {"token": other}, headers=bearer(own)).json() == {"active": False}


def test_the_published_key_is_the_one_that_signed(client: TestClient, log_in_form: dict[str, str]) -> None:
    """The key set holds the key that the token's header names, and may be cached."""
    token = post(client, "/auth/token", log_in_form).json()["access_token"]
    answer = client.get("/.well-known/jwks.json")
    assert read_header(token)["kid"] in {key["kid"] for key in answer.json()["keys"]}
    assert "max-age" in answer.headers["cache-control"]


def test_the_metadata_names_what_is_there(client: TestClient, settings: Settings) -> None:
    """Every endpoint of the metadata document is served below the issuer's address."""
    document = client.get("/.well-known/oauth-authorization-server").json()
    assert document["issuer"] == settings.issuer
    for name, url in document.items():
        if name.endswith(("_endpoint", "_uri")):
            assert url.startswith(f"{settings.issuer}/")
            path = url.removeprefix(settings.issuer)
            assert client.post(path).status_code != 404, name


def test_a_disabled_client_s_token_is_refused(client: TestClient, service: tuple[str, str], settings: Settings) -> None:
    """Disabling a client, by another process, ends the tokens that it holds."""
    token = post(client, "/auth/token", {"grant_type": "client_credentials"}, auth=service).json()["access_token"]
    run_with_engine(settings, lambda engine: ClientStore(engine).disable("maps"))
    deadline = time.monotonic() + 5
    while client.get("/v1/me", headers=bearer(token)).status_code != 401:
        assert time.monotonic() < deadline
