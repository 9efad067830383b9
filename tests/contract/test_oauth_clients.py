"""The OAuth endpoints work with unmodified client libraries of other projects."""

from __future__ import annotations

import base64
import json

import httpx
import pytest
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata
from joserfc import jwt
from joserfc.jwk import KeySet

from tests.support.gateway import PASSWORD, TIMEOUT_S, Gateway

# authlib accepts plain HTTP, which the gateway of the tests speaks on loopback, only with this variable.
pytestmark = pytest.mark.usefixtures("_insecure_transport")


@pytest.fixture
def _insecure_transport(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTHLIB_INSECURE_TRANSPORT", "1")


@pytest.fixture(scope="module")
def service(gateway: Gateway) -> dict[str, str]:
    """The id and the secret of a client with the scope `predict`, which the command line creates."""
    added = gateway.run("clients", "add", "authlib", "--scope", "predict", "--json")
    assert added.returncode == 0, added.stderr
    document = json.loads(added.stdout)
    return {name: document[name] for name in ("client_id", "client_secret")}


def find_endpoint(gateway: Gateway, name: str) -> str:
    """The URL of an endpoint in the metadata, at the port of this gateway."""
    document = gateway.get("/.well-known/oauth-authorization-server").json()
    url: str = document[name]
    return url.replace(document["issuer"], gateway.base_url)


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
def test_authlib_gets_a_token_for_a_service(gateway: Gateway, service: dict[str, str], method: str) -> None:
    """authlib's OAuth2Session gets a token for client credentials and calls the API with it."""
    with OAuth2Session(**service, token_endpoint_auth_method=method, scope="predict") as session:
        session.fetch_token(find_endpoint(gateway, "token_endpoint"), grant_type="client_credentials")
        response = session.get(f"{gateway.base_url}/v1/me")
    assert response.json()["subject"] == service["client_id"]


def test_authlib_logs_in_refreshes_and_logs_out(gateway: Gateway, service: dict[str, str]) -> None:
    """The password grant, refresh, introspection and revocation work with authlib's OAuth2Session."""
    with OAuth2Session(**service) as session:
        url = find_endpoint(gateway, "token_endpoint")
        first = session.fetch_token(url, username="ana", password=PASSWORD)
        second = session.refresh_token(url, refresh_token=first["refresh_token"])
        assert second["refresh_token"] != first["refresh_token"]
        inspected = session.introspect_token(
            find_endpoint(gateway, "introspection_endpoint"), token=second["access_token"]
        )
        assert inspected.json()["active"] is True
        revoked = session.revoke_token(find_endpoint(gateway, "revocation_endpoint"), token=second["refresh_token"])
        assert revoked.status_code == 200
        inspected = session.introspect_token(
            find_endpoint(gateway, "introspection_endpoint"), token=second["access_token"]
        )
        assert inspected.json() == {"active": False}


def test_authlib_accepts_the_metadata(gateway: Gateway) -> None:
    """The metadata has what RFC 8414 requires of a server without an authorization endpoint."""
    document = gateway.get("/.well-known/oauth-authorization-server").json()
    metadata = AuthorizationServerMetadata(document)
    for name in ("token_endpoint", "jwks_uri", "scopes_supported", "grant_types_supported", "revocation_endpoint"):
        getattr(metadata, f"validate_{name}")()
    assert metadata["response_types_supported"] == []


def test_another_library_verifies_a_token_with_the_published_keys(gateway: Gateway) -> None:
    """joserfc verifies an access token with nothing but the published key set."""
    keys = KeySet.import_key_set(httpx.get(find_endpoint(gateway, "jwks_uri"), timeout=TIMEOUT_S).json())
    token = jwt.decode(gateway.token(), keys, algorithms=["ES256"])
    assert token.header["typ"] == "at+jwt"
    assert token.claims["name"] == "ana"


def test_a_proxy_can_introspect(gateway: Gateway, service: dict[str, str]) -> None:
    """Introspection by a proxy follows RFC 7662: HTTP Basic and a form give `active`, `exp`, `sub` and `scope`."""
    basic = base64.b64encode(f"{service['client_id']}:{service['client_secret']}".encode()).decode()
    response = httpx.post(
        find_endpoint(gateway, "introspection_endpoint"),
        headers={"Authorization": f"Basic {basic}", "Accept": "application/json"},
        data={"token": gateway.token(), "token_type_hint": "access_token"},
        timeout=TIMEOUT_S,
    )
    assert response.headers["content-type"] == "application/json"
    assert {"active", "exp", "sub", "scope", "username", "iss", "aud"} <= set(response.json())
