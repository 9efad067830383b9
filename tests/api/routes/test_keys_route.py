"""`/v1/keys` and what an API key may do, over HTTP."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.app import create_app
from api.commands.database import run_with_engine
from api.commands.users import run_with_accounts
from api.settings import Settings
from auth.api_keys.store import KeyStore
from auth.clients import ClientStore
from auth.principal import Role, Scope

LogIn = Callable[..., dict[str, str]]
Bearer = dict[str, str]
SECOND = timedelta(seconds=1)
JSON = {"Content-Type": "application/json"}


def make(client: TestClient, headers: Bearer, **asked: Any) -> dict[str, Any]:
    answer = client.post("/v1/keys", json={"name": "maps", **asked}, headers=headers)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def with_key(made: dict[str, Any]) -> Bearer:
    return {"X-API-Key": made["key"]}


@pytest.fixture
def root(client: TestClient, settings: Settings, password: str, log_in: LogIn) -> Bearer:
    """The token of a user who administers."""
    run_with_accounts(settings, lambda accounts: accounts.add("root", Role.ADMIN, password))
    return log_in(client, "root")


def test_a_key_is_made_and_shown_once(client: TestClient, bearer: Bearer) -> None:
    """The answer to the creation holds the key; no later answer does."""
    before = datetime.now(UTC)
    made = make(client, bearer)
    assert made["key"].startswith(f"atl_{made['id']}_")
    assert (made["scopes"], made["addresses"], made["user"]) == (["predict"], [], "ana")
    assert abs(datetime.fromisoformat(made["expires_at"]) - before - timedelta(days=90)) < 10 * SECOND
    shown = client.get(f"/v1/keys/{made['id']}", headers=bearer).json()
    listed = client.get("/v1/keys", headers=bearer).json()
    assert listed == [shown]
    assert shown == {name: value for name, value in made.items() if name != "key"}


def test_all_terms_are_kept(client: TestClient, bearer: Bearer) -> None:
    """Scopes, addresses, rate, quotas and the end are the ones that were asked for."""
    asked = {
        "scopes": ["predictions:read", "predict"],
        "addresses": ["10.0.0.0/8", "2001:db8::1"],
        "rate": "60/minute",
        "monthly_requests": 1000,
        "monthly_megapixels": 50,
    }
    made = make(client, bearer, **asked, expires_days=1)
    assert made["scopes"] == ["predict", "predictions:read"]
    assert made["addresses"] == ["10.0.0.0/8", "2001:db8::1/128"]
    assert (made["rate"], made["monthly_requests"], made["monthly_megapixels"]) == ("60/minute", 1000, 50)
    assert datetime.fromisoformat(made["expires_at"]) < datetime.now(UTC) + timedelta(days=1)


@pytest.mark.parametrize("form", ["X-API-Key", "Bearer"])
def test_a_key_is_a_credential(client: TestClient, bearer: Bearer, sample: bytes, form: str) -> None:
    """A key counts in both places, with its scopes and no more."""
    key = make(client, bearer)["key"]
    headers = {"X-API-Key": key} if form == "X-API-Key" else {"Authorization": f"Bearer {key}"}
    me = client.get("/v1/me", headers=headers).json()
    assert (me["name"], me["scopes"]) == ("ana", ["predict"])
    assert client.post("/v1/predictions", files={"file": sample}, headers=headers).status_code == 200
    refused = client.get("/v1/keys", headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (403, "insufficient_scope")


@pytest.mark.parametrize("key", ["atl_x", f"atl_{'0' * 16}_{'A' * 43}"])
def test_a_wrong_key_is_an_invalid_token(client: TestClient, key: str) -> None:
    """A key of the wrong form and an unknown one are refused alike."""
    answer = client.get("/v1/me", headers={"X-API-Key": key})
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_token")
    assert answer.json()["detail"] == "This is not a valid API key. Check it, or create another."
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]
    assert key not in answer.text


@pytest.mark.parametrize(
    "asked",
    [
        {"name": ""},
        {"name": "x" * 65},
        {"name": "line\nbreak"},
        {"name": "\ud800"},
        {"scopes": []},
        {"scopes": ["king"]},
        {"expires_days": 0},
        {"expires_days": 367},
        {"addresses": ["10.0.0.1/8"]},
        {"addresses": ["here"]},
        {"addresses": ["::1"] * 17},
        {"addresses": ["fe80::1%eth0"]},
        {"addresses": ["fe80::1%a b"]},
        {"addresses": ["fe80::1%\0x"]},
        {"rate": "often"},
        {"rate": "0/minute"},
        {"rate": "5/fortnight"},
        {"monthly_requests": -1},
        {"monthly_megapixels": 2**60},
        {"user_id": "other"},
        {"role": "admin"},
        {"created_at": "2020-01-01"},
    ],
)
def test_unfit_terms_are_refused(client: TestClient, bearer: Bearer, asked: dict[str, Any]) -> None:
    """What cannot be a term, and every field that is none, is a 422 that names the field."""
    answer = client.post("/v1/keys", content=json.dumps({"name": "maps", **asked}), headers={**bearer, **JSON})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert next(iter(asked)) in answer.json()["detail"]


def test_a_key_gets_no_more_than_its_maker_has(client: TestClient, log_in: LogIn) -> None:
    """Neither the owner's role nor the token's scopes can be exceeded."""
    for scopes, asked in (("", "users:admin"), ("keys:write", "predict")):
        headers = log_in(client, scope=scopes)
        answer = client.post("/v1/keys", json={"name": "maps", "scopes": [asked]}, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope")
        assert f'scope="{asked}"' in answer.headers["www-authenticate"]
    assert client.get("/v1/keys", headers=log_in(client)).json() == []


def test_a_key_that_makes_keys_gives_only_its_own(client: TestClient, bearer: Bearer) -> None:
    """A key may make one with fewer scopes that ends no later, and none with more."""
    maker = make(client, bearer, scopes=["keys:write", "predict"], expires_days=2)
    child = make(client, with_key(maker), expires_days=90)
    assert child["expires_at"] == maker["expires_at"]
    more = {"name": "more", "scopes": ["predictions:read"]}
    assert client.post("/v1/keys", json=more, headers=with_key(maker)).status_code == 403


def test_a_bound_key_makes_none_and_rotates_itself_alone(client: TestClient, bearer: Bearer) -> None:
    """A key cannot get round its rate by way of another key of its owner."""
    bound = make(client, bearer, scopes=["keys:write", "predict"], rate="5/minute")
    free = make(client, bearer)
    for path in ("/v1/keys", f"/v1/keys/{free['id']}/rotate"):
        body = {"name": "maps"} if path == "/v1/keys" else {}
        answer = client.post(path, json=body, headers=with_key(bound))
        assert (answer.status_code, answer.json()["code"]) == (403, "key_bound")
    rotated = client.post(f"/v1/keys/{bound['id']}/rotate", headers=with_key(bound))
    assert rotated.json()["expires_at"] == bound["expires_at"]


def test_a_key_is_rotated(client: TestClient, bearer: Bearer) -> None:
    """The new secret counts at once, the old one for a day or as long as was asked."""
    first = make(client, bearer)
    rotated = client.post(f"/v1/keys/{first['id']}/rotate", headers=bearer)
    second = rotated.json()
    assert rotated.status_code == 200
    assert (second["id"], second["expires_at"]) == (first["id"], first["expires_at"])
    overlap = datetime.fromisoformat(second["previous_until"]) - datetime.now(UTC)
    assert timedelta(hours=24) - 10 * SECOND < overlap <= timedelta(hours=24)
    for made in (first, second):
        assert client.get("/v1/me", headers=with_key(made)).status_code == 200
    asked = {"overlap_hours": 0, "expires_days": 200}
    third = client.post(f"/v1/keys/{first['id']}/rotate", json=asked, headers=bearer).json()
    assert third["expires_at"] > first["expires_at"]
    statuses = [client.get("/v1/me", headers=with_key(made)).status_code for made in (first, second, third)]
    assert statuses == [401, 401, 200]


@pytest.mark.parametrize("asked", [{"overlap_hours": -1}, {"overlap_hours": 721}, {"expires_days": 0}, {"secret": "x"}])
def test_an_unfit_rotation_is_refused(client: TestClient, bearer: Bearer, asked: dict[str, Any]) -> None:
    """An overlap beyond a month, an end in the past or a field that is none is a 422."""
    made = make(client, bearer)
    assert client.post(f"/v1/keys/{made['id']}/rotate", json=asked, headers=bearer).status_code == 422


def test_a_narrow_token_cannot_rotate_its_way_up(client: TestClient, bearer: Bearer, log_in: LogIn) -> None:
    """A token that may not predict cannot take the new secret of a key that may."""
    made = make(client, bearer)
    answer = client.post(f"/v1/keys/{made['id']}/rotate", headers=log_in(client, scope="keys:write"))
    assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope")


def test_a_key_is_revoked(client: TestClient, bearer: Bearer) -> None:
    """A revoked key is refused from the next request on; revoking twice is no error, rotating it is."""
    made = make(client, bearer)
    path = f"/v1/keys/{made['id']}"
    assert client.get("/v1/me", headers=with_key(made)).status_code == 200
    for _ in range(2):
        answer = client.delete(path, headers=bearer)
        assert (answer.status_code, answer.content) == (204, b"")
    assert client.get("/v1/me", headers=with_key(made)).status_code == 401
    assert client.get(path, headers=bearer).json()["revoked_at"] is not None
    answer = client.post(f"{path}/rotate", headers=bearer)
    assert (answer.status_code, answer.json()["code"]) == (409, "key_ended")


def test_another_s_key_is_not_found(client: TestClient, bearer: Bearer, settings: Settings, log_in: LogIn) -> None:
    """To another user a key is as absent as one that never was."""
    run_with_accounts(settings, lambda accounts: accounts.add("bea", Role.CLIENT, "correct horse battery"))
    made, bea = make(client, bearer), log_in(client, "bea")
    answers = []
    for key_id in (made["id"], "0" * 16, "nonsense"):
        path = f"/v1/keys/{key_id}"
        got = [
            client.get(path, headers=bea),
            client.delete(path, headers=bea),
            client.post(f"{path}/rotate", headers=bea),
        ]
        assert [answer.status_code for answer in got] == [404] * 3
        answers += [{**answer.json(), "request_id": ""} for answer in got]
    assert all(answer == answers[0] for answer in answers)
    assert client.get("/v1/keys", headers=bea).json() == []
    assert client.get("/v1/me", headers=with_key(made)).status_code == 200
    refused = client.get("/v1/keys", params={"user": made["user_id"]}, headers=bea)
    assert (refused.status_code, refused.json()["code"]) == (403, "insufficient_scope")


def test_administrators_list_and_revoke_any_key(client: TestClient, bearer: Bearer, root: Bearer) -> None:
    """With `users:admin` another's keys are seen and revoked, but no secret of theirs is to be had."""
    made = make(client, bearer)
    (listed,) = client.get("/v1/keys", params={"user": made["user_id"]}, headers=root).json()
    assert listed["id"] == made["id"]
    assert client.get("/v1/keys", headers=root).json() == []
    path = f"/v1/keys/{made['id']}"
    assert client.post(f"{path}/rotate", headers=root).status_code == 404
    assert client.delete(path, headers=root).status_code == 204
    assert client.get("/v1/me", headers=with_key(made)).status_code == 401


def test_only_users_have_keys(client: TestClient, settings: Settings) -> None:
    """A service logs in as itself, and owns no keys."""
    added = run_with_engine(settings, lambda engine: ClientStore(engine).add("maps", {Scope.KEYS_WRITE, Scope.PREDICT}))
    token = client.post("/auth/token", data={"grant_type": "client_credentials"}, auth=(added[0].id, added[1]))
    headers = {"Authorization": f"Bearer {token.json()['access_token']}"}
    answer = client.post("/v1/keys", json={"name": "maps"}, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "no_account")
    assert client.get("/v1/keys", headers=headers).json() == []


def test_keys_need_a_login(client: TestClient, log_in: LogIn) -> None:
    """Without credentials 401, without the scope 403."""
    assert client.get("/v1/keys").status_code == 401
    assert client.get("/v1/keys", headers=log_in(client, "olga")).status_code == 403


@pytest.mark.parametrize("streamed", [False, True])
def test_a_large_document_is_refused_unread(client: TestClient, bearer: Bearer, streamed: bool) -> None:
    """JSON is capped far below images, with and without an announced length."""
    body = b"[" * 70_000
    answer = client.post("/v1/keys", content=iter([body]) if streamed else body, headers=JSON | bearer)
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


def test_what_is_no_document_is_refused(client: TestClient, bearer: Bearer) -> None:
    """Neither deep nor broken JSON is an error of the gateway."""
    for body in (b"[" * 60_000, b"{", b"\xff", b"null", b"[]"):
        assert client.post("/v1/keys", content=body, headers={**bearer, **JSON}).status_code in (400, 422)


def test_a_key_has_its_own_rate(client: TestClient, bearer: Bearer, sample: bytes) -> None:
    """A key is held to its rate on both prediction routes together, beside the limit of its owner."""
    slow = make(client, bearer, rate="2/hour")

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
    for headers in (bearer, with_key(make(client, bearer))):
        other = predict(headers)
        assert other.status_code == 200
        assert other.headers["RateLimit-Policy"] == '"predict";q=10000;w=60'


def test_the_last_use_is_written_when_the_gateway_stops(settings: Settings, log_in: LogIn) -> None:
    """What was noted of a key's use outlives the process."""
    with TestClient(create_app(settings)) as client:
        made = make(client, log_in(client))
        client.get("/v1/me", headers=with_key(made))
    key = run_with_engine(settings, lambda engine: KeyStore(engine).get(made["id"]))
    assert key.last_used_at is not None
