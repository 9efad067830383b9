"""`/v1/keys`, and what an API key may do."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.app import create_app
from api.commands.database import run_with_accounts, run_with_engine
from api.settings import Settings
from auth.api_keys.store import KeyStore
from auth.clients import ClientStore
from auth.principal import Role, Scope

LogIn = Callable[..., dict[str, str]]
Bearer = dict[str, str]
SECOND = timedelta(seconds=1)
JSON = {"Content-Type": "application/json"}


def create(client: TestClient, headers: Bearer, **terms: Any) -> dict[str, Any]:
    response = client.post("/v1/keys", json={"name": "maps", **terms}, headers=headers)
    assert response.status_code == 201, response.text
    created: dict[str, Any] = response.json()
    assert response.headers["Location"] == f"/v1/keys/{created['id']}"
    return created


def with_key(created: dict[str, Any]) -> Bearer:
    return {"X-API-Key": created["key"]}


@pytest.fixture
def root(client: TestClient, settings: Settings, password: str, log_in: LogIn) -> Bearer:
    """The token of an administrator."""
    run_with_accounts(settings, lambda accounts: accounts.add("root", Role.ADMIN, password))
    return log_in(client, "root")


def test_a_key_is_shown_only_at_creation(client: TestClient, bearer: Bearer) -> None:
    """The response to the creation contains the key; no later response does."""
    before = datetime.now(UTC)
    created = create(client, bearer)
    after = datetime.now(UTC)
    assert created["key"].startswith(f"atl_{created['id']}_")
    assert (created["scopes"], created["addresses"], created["user"]) == (["predict"], [], "ana")
    assert before - SECOND <= datetime.fromisoformat(created["expires_at"]) - timedelta(days=90) <= after
    shown = client.get(f"/v1/keys/{created['id']}", headers=bearer).json()
    listed = client.get("/v1/keys", headers=bearer).json()
    assert listed == [shown]
    assert shown == {name: value for name, value in created.items() if name != "key"}


def test_a_key_has_the_requested_terms(client: TestClient, bearer: Bearer) -> None:
    """The key has the scopes, addresses, rate, quotas and expiry of the request."""
    terms = {
        "scopes": ["predictions:read", "predict"],
        "addresses": ["10.0.0.0/8", "2001:db8::1"],
        "rate": "60/minute",
        "monthly_requests": 1000,
        "monthly_megapixels": 50,
    }
    created = create(client, bearer, **terms, expires_days=1)
    assert created["scopes"] == ["predict", "predictions:read"]
    assert created["addresses"] == ["10.0.0.0/8", "2001:db8::1/128"]
    assert (created["rate"], created["monthly_requests"], created["monthly_megapixels"]) == ("60/minute", 1000, 50)
    assert datetime.fromisoformat(created["expires_at"]) < datetime.now(UTC) + timedelta(days=1)


@pytest.mark.parametrize("form", ["X-API-Key", "Bearer"])
def test_a_key_is_a_credential(client: TestClient, bearer: Bearer, sample: bytes, form: str) -> None:
    """Both headers accept a key, which has its own scopes only."""
    key = create(client, bearer)["key"]
    headers = {"X-API-Key": key} if form == "X-API-Key" else {"Authorization": f"Bearer {key}"}
    me = client.get("/v1/me", headers=headers).json()
    assert (me["name"], me["scopes"]) == ("ana", ["predict"])
    assert client.post("/v1/predictions", files={"file": sample}, headers=headers).status_code == 200
    refused = client.get("/v1/keys", headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (403, "insufficient_scope")


@pytest.mark.parametrize("key", ["atl_x", f"atl_{'0' * 16}_{'A' * 43}"])
def test_a_wrong_key_is_an_invalid_token(client: TestClient, key: str) -> None:
    """A malformed key and an unknown key get the same response."""
    response = client.get("/v1/me", headers={"X-API-Key": key})
    assert (response.status_code, response.json()["code"]) == (401, "invalid_token")
    assert response.json()["detail"] == "This is not a valid API key. Check it, or create another."
    assert 'error="invalid_token"' in response.headers["www-authenticate"]
    assert key not in response.text


@pytest.mark.parametrize(
    "terms",
    [
        *({"name": name} for name in ("", " ", "x" * 65, "line\nbreak", "\ud800")),
        {"scopes": []},
        {"scopes": ["superuser"]},
        {"expires_days": 0},
        {"expires_days": 367},
        {"addresses": ["10.0.0.1/8"]},
        {"addresses": ["localhost"]},
        {"addresses": ["::1"] * 17},
        {"addresses": ["fe80::1%eth0"]},
        {"addresses": ["fe80::1%a b"]},
        {"addresses": ["fe80::1%\0x"]},
        {"rate": "frequent"},
        {"rate": "0/minute"},
        {"rate": "5/fortnight"},
        {"monthly_requests": -1},
        {"monthly_megapixels": 2**60},
        {"user_id": "other"},
        {"role": "admin"},
        {"created_at": "2020-01-01"},
    ],
)
def test_invalid_terms_are_rejected(shared_client: TestClient, shared_bearers: dict[str, Bearer], terms: Any) -> None:
    """An invalid term and an unknown field get 422 with an error that names the field."""
    body = json.dumps({"name": "maps", **terms})
    response = shared_client.post("/v1/keys", content=body, headers={**shared_bearers["ana"], **JSON})
    assert (response.status_code, response.json()["code"]) == (422, "invalid_request")
    assert next(iter(terms)) in response.json()["detail"]


def test_a_key_cannot_exceed_its_creator_s_scopes(client: TestClient, log_in: LogIn) -> None:
    """A new key cannot have scopes that the owner's role or the caller's token lacks."""
    for scopes, terms in (("", "users:admin"), ("keys:write", "predict")):
        headers = log_in(client, scope=scopes)
        response = client.post("/v1/keys", json={"name": "maps", "scopes": [terms]}, headers=headers)
        assert (response.status_code, response.json()["code"]) == (403, "insufficient_scope")
        assert f'scope="{terms}"' in response.headers["www-authenticate"]
    assert client.get("/v1/keys", headers=log_in(client)).json() == []


def test_a_key_creates_keys_within_its_own_terms(client: TestClient, bearer: Bearer) -> None:
    """A key can create a key with fewer scopes and no later expiry, but not one with more scopes."""
    creator = create(client, bearer, scopes=["keys:write", "predict"], expires_days=2)
    child = create(client, with_key(creator), expires_days=90)
    assert child["expires_at"] == creator["expires_at"]
    more = {"name": "more", "scopes": ["predictions:read"]}
    assert client.post("/v1/keys", json=more, headers=with_key(creator)).status_code == 403


def test_a_restricted_key_can_only_rotate_itself(client: TestClient, bearer: Bearer) -> None:
    """A key with a rate cannot evade it by creating or rotating another key of its owner."""
    bound = create(client, bearer, scopes=["keys:write", "predict"], rate="5/minute")
    free = create(client, bearer)
    for path in ("/v1/keys", f"/v1/keys/{free['id']}/rotate"):
        body = {"name": "maps"} if path == "/v1/keys" else {}
        response = client.post(path, json=body, headers=with_key(bound))
        assert (response.status_code, response.json()["code"]) == (403, "key_bound")
    rotated = client.post(f"/v1/keys/{bound['id']}/rotate", headers=with_key(bound))
    assert rotated.json()["expires_at"] == bound["expires_at"]


def test_a_key_is_rotated(client: TestClient, bearer: Bearer) -> None:
    """The new secret is valid at once, the old one for another day or for the requested overlap."""
    first, before = create(client, bearer), datetime.now(UTC)
    rotated = client.post(f"/v1/keys/{first['id']}/rotate", headers=bearer)
    second = rotated.json()
    assert rotated.status_code == 200
    assert (second["id"], second["expires_at"]) == (first["id"], first["expires_at"])
    rotated_at = datetime.fromisoformat(second["previous_until"]) - timedelta(hours=24)
    assert before - SECOND <= rotated_at <= datetime.now(UTC)
    for created in (first, second):
        assert client.get("/v1/me", headers=with_key(created)).status_code == 200
    terms = {"overlap_hours": 0, "expires_days": 200}
    third = client.post(f"/v1/keys/{first['id']}/rotate", json=terms, headers=bearer).json()
    assert third["expires_at"] > first["expires_at"]
    statuses = [client.get("/v1/me", headers=with_key(created)).status_code for created in (first, second, third)]
    assert statuses == [401, 401, 200]


@pytest.mark.parametrize("terms", [{"overlap_hours": -1}, {"overlap_hours": 721}, {"expires_days": 0}, {"secret": "x"}])
def test_an_invalid_rotation_is_rejected(client: TestClient, bearer: Bearer, terms: dict[str, Any]) -> None:
    """An overlap over 30 days, an expiry in the past or an unknown field gets 422."""
    created = create(client, bearer)
    assert client.post(f"/v1/keys/{created['id']}/rotate", json=terms, headers=bearer).status_code == 422


def test_a_narrow_token_cannot_rotate_a_wider_key(client: TestClient, bearer: Bearer, log_in: LogIn) -> None:
    """A token without `predict` cannot get the new secret of a key with `predict`."""
    created = create(client, bearer)
    response = client.post(f"/v1/keys/{created['id']}/rotate", headers=log_in(client, scope="keys:write"))
    assert (response.status_code, response.json()["code"]) == (403, "insufficient_scope")


def test_a_key_is_revoked(client: TestClient, bearer: Bearer) -> None:
    """A revoked key is rejected at once; revoking it again succeeds, rotating it fails."""
    created = create(client, bearer)
    path = f"/v1/keys/{created['id']}"
    assert client.get("/v1/me", headers=with_key(created)).status_code == 200
    for _ in range(2):
        response = client.delete(path, headers=bearer)
        assert (response.status_code, response.content) == (204, b"")
    assert client.get("/v1/me", headers=with_key(created)).status_code == 401
    assert client.get(path, headers=bearer).json()["revoked_at"] is not None
    response = client.post(f"{path}/rotate", headers=bearer)
    assert (response.status_code, response.json()["code"]) == (409, "key_ended")


def test_another_user_s_key_is_not_found(client: TestClient, bearer: Bearer, settings: Settings, log_in: LogIn) -> None:
    """Another user gets the same 404 for a key that exists and for one that does not."""
    run_with_accounts(settings, lambda accounts: accounts.add("bea", Role.CLIENT, "correct horse battery"))
    created, bea = create(client, bearer), log_in(client, "bea")
    responses = []
    for key_id in (created["id"], "0" * 16, "nonsense"):
        path = f"/v1/keys/{key_id}"
        got = [
            client.get(path, headers=bea),
            client.delete(path, headers=bea),
            client.post(f"{path}/rotate", headers=bea),
        ]
        assert [response.status_code for response in got] == [404] * 3
        responses += [{**response.json(), "request_id": ""} for response in got]
    assert all(response == responses[0] for response in responses)
    assert client.get("/v1/keys", headers=bea).json() == []
    assert client.get("/v1/me", headers=with_key(created)).status_code == 200
    refused = client.get("/v1/keys", params={"user": created["user_id"]}, headers=bea)
    assert (refused.status_code, refused.json()["code"]) == (403, "insufficient_scope")


def test_administrators_list_and_revoke_any_key(client: TestClient, bearer: Bearer, root: Bearer) -> None:
    """With `users:admin` a caller lists and revokes other users' keys, but cannot get their secrets."""
    created = create(client, bearer)
    (listed,) = client.get("/v1/keys", params={"user": created["user_id"]}, headers=root).json()
    assert listed["id"] == created["id"]
    assert client.get("/v1/keys", headers=root).json() == []
    path = f"/v1/keys/{created['id']}"
    assert client.post(f"{path}/rotate", headers=root).status_code == 404
    assert client.delete(path, headers=root).status_code == 204
    assert client.get("/v1/me", headers=with_key(created)).status_code == 401


def test_only_users_have_keys(client: TestClient, settings: Settings) -> None:
    """A client that logs in with client_credentials cannot own keys."""
    added = run_with_engine(settings, lambda engine: ClientStore(engine).add("maps", {Scope.KEYS_WRITE, Scope.PREDICT}))
    token = client.post("/auth/token", data={"grant_type": "client_credentials"}, auth=(added[0].id, added[1]))
    headers = {"Authorization": f"Bearer {token.json()['access_token']}"}
    response = client.post("/v1/keys", json={"name": "maps"}, headers=headers)
    assert (response.status_code, response.json()["code"]) == (403, "no_account")
    assert client.get("/v1/keys", headers=headers).json() == []


def test_keys_need_credentials_and_scope(client: TestClient, log_in: LogIn) -> None:
    """A request without credentials gets 401, one without the scope 403."""
    assert client.get("/v1/keys").status_code == 401
    assert client.get("/v1/keys", headers=log_in(client, "olga")).status_code == 403


@pytest.mark.parametrize("streamed", [False, True])
def test_a_large_document_is_rejected(client: TestClient, bearer: Bearer, streamed: bool) -> None:
    """A JSON body over 64 KiB is rejected, with and without a declared length."""
    body = b"[" * 70_000
    response = client.post("/v1/keys", content=iter([body]) if streamed else body, headers=JSON | bearer)
    assert (response.status_code, response.json()["code"]) == (413, "body_too_large")


def test_invalid_documents_are_rejected(client: TestClient, bearer: Bearer) -> None:
    """Deeply nested or malformed JSON is an error of the client, not of the gateway."""
    for body in (b"[" * 60_000, b"{", b"\xff", b"null", b"[]"):
        assert client.post("/v1/keys", content=body, headers={**bearer, **JSON}).status_code in (400, 422)


def test_a_key_has_its_own_rate(client: TestClient, bearer: Bearer, sample: bytes) -> None:
    """A key's rate limits both prediction routes together, in addition to its owner's limit."""
    slow = create(client, bearer, rate="2/hour")

    def predict(headers: Bearer, path: str = "/v1/predictions") -> Any:
        return client.post(path, files={"file": sample}, headers=headers)

    first = predict(with_key(slow))
    assert first.headers["RateLimit-Policy"] == '"predict";q=10000;w=60, "key";q=2;w=3600'
    assert '"predict";r=9999;' in first.headers["RateLimit"]
    assert '"key";r=1;' in first.headers["RateLimit"]
    assert predict(with_key(slow), "/predict-land-use").status_code == 200
    refused = predict(with_key(slow))
    assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
    assert refused.headers["RateLimit-Policy"] == '"key";q=2;w=3600'
    assert refused.headers["RateLimit"].startswith('"key";r=0;t=')
    assert int(refused.headers["Retry-After"]) > 60
    for headers in (bearer, with_key(create(client, bearer))):
        other = predict(headers)
        assert other.status_code == 200
        assert other.headers["RateLimit-Policy"] == '"predict";q=10000;w=60'


def test_the_last_use_is_saved_on_shutdown(settings: Settings, log_in: LogIn) -> None:
    """The time of a key's last use is in the database after a shutdown."""
    with TestClient(create_app(settings)) as client:
        created = create(client, log_in(client))
        client.get("/v1/me", headers=with_key(created))
    key = run_with_engine(settings, lambda engine: KeyStore(engine).get(created["id"]))
    assert key.last_used_at is not None
