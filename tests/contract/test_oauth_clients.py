"""Clients that others wrote work against the OAuth endpoints, unchanged."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import pytest
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata
from joserfc import jwt
from joserfc.jwk import KeySet

# The gateway of the tests speaks plain HTTP on loopback, which authlib takes only if told so.
pytestmark = pytest.mark.usefixtures("_insecure_transport")
PASSWORD = "correct horse battery"


@pytest.fixture
def _insecure_transport(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTHLIB_INSECURE_TRANSPORT", "1")


@pytest.fixture(scope="module")
def service(gateway: Any) -> dict[str, str]:
    """The id and the secret of a client that may predict, made at the command line."""
    added = gateway.run("clients", "add", "authlib", "--scope", "predict", "--json")
    assert added.returncode == 0, added.stderr
    document = json.loads(added.stdout)
    return {name: document[name] for name in ("client_id", "client_secret")}


def endpoint(gateway: Any, name: str) -> str:
    """An endpoint's address by the metadata, at the port where this gateway listens."""
    document = httpx.get(f"{gateway.base_url}/.well-known/oauth-authorization-server").json()
    url: str = document[name]
    return url.replace(document["issuer"], gateway.base_url)


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
def test_authlib_gets_a_token_for_a_service(gateway: Any, service: dict[str, str], method: str) -> None:
    """authlib's OAuth2Session fetches a token with the client's credentials and calls the API with it."""
    with OAuth2Session(**service, token_endpoint_auth_method=method, scope="predict") as session:
        session.fetch_token(endpoint(gateway, "token_endpoint"), grant_type="client_credentials")
        answer = session.get(f"{gateway.base_url}/v1/me")
    assert answer.json()["subject"] == service["client_id"]


def test_authlib_logs_a_user_in_refreshes_and_logs_out(gateway: Any, service: dict[str, str]) -> None:
    """The password grant, a refresh, introspection and revocation, all by OAuth2Session."""
    with OAuth2Session(**service) as session:
        url = endpoint(gateway, "token_endpoint")
        first = session.fetch_token(url, username="ana", password=PASSWORD)
        second = session.refresh_token(url, refresh_token=first["refresh_token"])
        assert second["refresh_token"] != first["refresh_token"]
        inspected = session.introspect_token(endpoint(gateway, "introspection_endpoint"), token=second["access_token"])
        assert inspected.json()["active"] is True
        revoked = session.revoke_token(endpoint(gateway, "revocation_endpoint"), token=second["refresh_token"])
        assert revoked.status_code == 200
        inspected = session.introspect_token(endpoint(gateway, "introspection_endpoint"), token=second["access_token"])
        assert inspected.json() == {"active": False}


def test_authlib_accepts_the_metadata(gateway: Any) -> None:
    """The document holds what RFC 8414 asks of a server without an authorization endpoint."""
    document = httpx.get(f"{gateway.base_url}/.well-known/oauth-authorization-server").json()
    metadata = AuthorizationServerMetadata(document)
    for name in ("token_endpoint", "jwks_uri", "scopes_supported", "grant_types_supported", "revocation_endpoint"):
        getattr(metadata, f"validate_{name}")()
    assert metadata["response_types_supported"] == []


def test_another_library_verifies_a_token_with_the_published_keys(gateway: Any) -> None:
    """joserfc verifies an access token with the key set alone."""
    keys = KeySet.import_key_set(httpx.get(endpoint(gateway, "jwks_uri")).json())
    token = jwt.decode(gateway.token(), keys, algorithms=["ES256"])
    assert token.header["typ"] == "at+jwt"
    assert token.claims["name"] == "ana"


def test_a_proxy_introspects(gateway: Any, service: dict[str, str]) -> None:
    """A proxy that checks tokens as RFC 7662 says: HTTP Basic, form in, `active`, `exp`, `sub` and `scope` out."""
    basic = base64.b64encode(f"{service['client_id']}:{service['client_secret']}".encode()).decode()
    answer = httpx.post(
        endpoint(gateway, "introspection_endpoint"),
        headers={"Authorization": f"Basic {basic}", "Accept": "application/json"},
        data={"token": gateway.token(), "token_type_hint": "access_token"},
    )
    assert answer.headers["content-type"] == "application/json"
    assert {"active", "exp", "sub", "scope", "username", "iss", "aud"} <= set(answer.json())
