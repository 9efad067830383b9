"""`POST /auth/token`."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

FORM = {"grant_type": "password", "username": "ana"}


def test_a_token_response_has_the_standard_fields(client: TestClient, password: str) -> None:
    """The response has the fields of RFC 6749 and forbids caching."""
    response = client.post("/auth/token", data={**FORM, "password": password})
    body = response.json()
    assert response.status_code == 200
    assert body["token_type"] == "Bearer"
    assert body["expires_in"] == 900
    assert body["scope"] == "keys:write predict predictions:read"
    assert response.headers["Cache-Control"] == "no-store"


def test_a_token_has_only_the_requested_scopes(client: TestClient, log_in: Any) -> None:
    """A token has the requested scopes and no others."""
    body = client.get("/v1/me", headers=log_in(client, "ana", "predict")).json()
    assert body["scopes"] == ["predict"]


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"password": "wrong horse battery"}, "invalid_grant"),
        ({"username": "nobody"}, "invalid_grant"),
        ({"scope": "users:admin"}, "invalid_scope"),
        ({"scope": "everything"}, "invalid_scope"),
        ({"grant_type": "implicit"}, "unsupported_grant_type"),
        ({"grant_type": ""}, "invalid_request"),
        ({"username": ""}, "invalid_request"),
        ({"password": ""}, "invalid_request"),
        ({"password": ["a", "b"]}, "invalid_request"),
        ({"password": "x" * 20_000}, "invalid_request"),
        ({f"field{index}": "x" for index in range(20)}, "invalid_request"),
    ],
)
def test_rejections(client: TestClient, password: str, changes: dict[str, Any], error: str) -> None:
    """A rejected request gets 400 in the format of RFC 6749, with one of its error codes."""
    response = client.post("/auth/token", data={**FORM, "password": password, **changes})
    assert (response.status_code, response.json()["error"]) == (400, error)
    assert set(response.json()) == {"error", "error_description"}


def test_an_oversized_form_is_an_invalid_request(client: TestClient) -> None:
    """A form whose Content-Length exceeds the limit of all bodies gets 413 in the format of RFC 6749."""
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Content-Length": str(10**9)}
    response = client.post("/auth/token", content=b"grant_type=password", headers=headers)
    assert (response.status_code, response.json()["error"]) == (413, "invalid_request")


def test_unknown_user_and_wrong_password_look_alike(client: TestClient) -> None:
    """The response does not reveal which users exist."""
    unknown = client.post("/auth/token", data={**FORM, "username": "nobody", "password": "wrong horse battery"})
    wrong = client.post("/auth/token", data={**FORM, "password": "wrong horse battery"})
    assert unknown.json() == wrong.json()


def test_json_is_rejected(client: TestClient, password: str) -> None:
    """The token endpoint accepts only a form, as RFC 6749 requires."""
    response = client.post("/auth/token", json={**FORM, "password": password})
    assert (response.status_code, response.json()["error"]) == (400, "invalid_request")


def test_invalid_encoding(client: TestClient) -> None:
    """A form that is not UTF-8 is rejected as an invalid request."""
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    response = client.post("/auth/token", headers=headers, content=b"grant_type=\xff\xfe")
    assert (response.status_code, response.json()["error"]) == (400, "invalid_request")


def test_token_in_query_is_ignored(client: TestClient, bearer: dict[str, str]) -> None:
    """A token in the query string is not a credential."""
    token = bearer["Authorization"].removeprefix("Bearer ")
    assert client.get(f"/v1/me?access_token={token}").status_code == 401


def test_log_ins_are_limited_per_address(make_client: Any, settings: Any, password: str) -> None:
    """An address over its limit gets 429 in OAuth's format with Retry-After, even with the right password."""
    client = make_client(limits=settings.limits.model_copy(update={"token": "3/hour"}))
    responses = [client.post("/auth/token", data={**FORM, "password": password}) for _ in range(4)]
    assert [response.status_code for response in responses] == [200, 200, 200, 429]
    assert responses[-1].json()["error"] == "temporarily_unavailable"
    assert 1 <= int(responses[-1].headers["Retry-After"]) <= 2 * 3600


def test_a_forwarded_address_from_an_unknown_peer_is_ignored(make_client: Any, settings: Any, password: str) -> None:
    """X-Forwarded-For from a peer that is not a trusted proxy does not change the limited address."""
    client = make_client(limits=settings.limits.model_copy(update={"token": "2/hour"}))
    statuses = [
        client.post(
            "/auth/token", data={**FORM, "password": password}, headers={"X-Forwarded-For": f"10.0.0.{index}"}
        ).status_code
        for index in range(3)
    ]
    assert statuses == [200, 200, 429]


@pytest.mark.parametrize("path", ["/v1/me", "/v1/labels"])
def test_a_repeated_credential_is_refused(client: TestClient, bearer: dict[str, str], path: str) -> None:
    """A request that repeats the header of its credential gets 400, even with equal values.

    With both headers, a bearer token is used, and Basic credentials, which are a proxy's, are ignored.
    """
    body = {"name": "maps", "scopes": ["predict"]}
    key = {"X-API-Key": client.post("/v1/keys", json=body, headers=bearer).json()["key"]}
    for headers in ([*bearer.items()] * 2, [*key.items()] * 2):
        response = client.get(path, headers=headers)
        assert (response.status_code, response.json()["code"]) == (400, "bad_request")
        assert "Send one" in response.json()["detail"]
    for both in (bearer | {"X-API-Key": "atl_wrong"}, {"Authorization": "Basic eDp5", **key}):
        assert client.get(path, headers=both).status_code == 200


@pytest.mark.parametrize("path", ["/auth/token", "/auth/introspect", "/auth/revoke"])
def test_a_repeated_credential_of_a_client_is_refused(client: TestClient, path: str) -> None:
    """The OAuth endpoints refuse a repeated Authorization header, too, in the form of RFC 6749."""
    form = {"grant_type": "client_credentials", "token": "x"}
    for value in ("Basic eDp5", "Bearer x"):
        response = client.post(path, data=form, headers=[("Authorization", value)] * 2)
        assert (response.status_code, response.json()["error"]) == (400, "invalid_request")
