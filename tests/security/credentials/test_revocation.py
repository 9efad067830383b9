"""Threats T2 and T6 to T11: rotation, revocation and introspection of tokens, on running gateways."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest

from auth.tokens.jws import generate_signing_key, read_header
from tests.security.credentials.revocation import REVOKED_WITHIN_S
from tests.support.gateway import PASSWORD, Gateway
from tests.support.paths import FOREST
from tests.support.polling import wait_until
from tests.support.wire import Wire

EXPECT = ("Expect: 100-continue", "Connection: close")
FOREST_BYTES = FOREST.read_bytes()


def in_form(image: bytes) -> bytes:
    """Return a multipart body with the boundary `b`."""
    return b'--b\r\nContent-Disposition: form-data; name="file"; filename="f.jpg"\r\n\r\n' + image + b"\r\n--b--\r\n"


def refresh(gateway: Gateway, token: str) -> httpx.Response:
    return gateway.post("/auth/token", data={"grant_type": "refresh_token", "refresh_token": token})


def get_me(gateway: Gateway, token: str) -> httpx.Response:
    return gateway.get("/v1/me", headers={"Authorization": f"Bearer {token}"})


@pytest.fixture
def second_gateway(gateway: Gateway, tmp_path: Path) -> Iterator[Gateway]:
    """Another gateway with the database, keys and issuer of the first one."""
    replica = gateway.replica(tmp_path / "replica")
    replica.start()
    yield replica
    replica.stop()


def test_a_key_rotation_logs_no_user_out(new_gateway: Callable[..., Gateway], tmp_path: Path) -> None:
    """T6: after a rotation the gateway accepts tokens of the old key, publishes both, and signs with the new one."""
    path = tmp_path / "keys.pem"
    path.write_text(generate_signing_key("ES256"))
    gateway = new_gateway(AUTH__SIGNING_KEY_FILE=str(path))
    old = gateway.token()
    rotated = gateway.run("keys", "rotate", "--yes")
    assert rotated.returncode == 0, rotated.stderr
    wait_until(lambda: len(gateway.get("/.well-known/jwks.json").json()["keys"]) == 2)
    assert get_me(gateway, old).status_code == 200
    wait_until(lambda: read_header(gateway.token())["kid"] != read_header(old)["kid"])
    assert get_me(gateway, old).status_code == 200


def test_a_reused_refresh_token_ends_the_login(gateway: Gateway) -> None:
    """T7: a refresh token works once; its second use revokes the newest refresh and access tokens of that login too."""
    first = gateway.log_in().json()
    second = refresh(gateway, first["refresh_token"]).json()
    assert second["refresh_token"] != first["refresh_token"]
    assert get_me(gateway, second["access_token"]).status_code == 200
    reused = refresh(gateway, first["refresh_token"])
    assert (reused.status_code, reused.json()["error"]) == (400, "invalid_grant")
    assert refresh(gateway, second["refresh_token"]).status_code == 400
    assert get_me(gateway, second["access_token"]).status_code == 401


def test_a_refresh_token_is_no_access_token(gateway: Gateway) -> None:
    """T2: the API rejects a refresh token, and the token endpoint rejects an access token as a refresh token."""
    pair = gateway.log_in().json()
    assert get_me(gateway, pair["refresh_token"]).status_code == 401
    assert refresh(gateway, pair["access_token"]).status_code == 400


def send_body_after_revocation(gateway: Gateway, path: str, content_type: str, body: bytes) -> tuple[int, str]:
    """Send the head of a request, revoke its token, then send the body. Return the status and the code."""
    token = gateway.fresh_token()
    wire, bearer = Wire(gateway.port, token), {"Authorization": f"Bearer {token.value}"}
    head = wire.head("POST", path, f"Content-Type: {content_type}", f"Content-Length: {len(body)}", *EXPECT)
    with closing(wire.connect()) as connection:
        connection.sendall(head)
        # The gateway asks for the body once it has authenticated the caller.
        assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
        assert gateway.post("/auth/revoke", data={"token": token.value}, headers=bearer).is_success
        status, document = wire.exchange_on(connection, [body])
    return status, document["code"]


def test_a_body_that_is_held_back_does_not_outlive_a_revocation(gateway: Gateway) -> None:
    """T9: a token that is revoked while the gateway waits for the body changes nothing when the body arrives."""
    sent = send_body_after_revocation(gateway, "/v1/keys", "application/json", b'{"name": "late"}')
    assert sent == (401, "invalid_token")


@pytest.mark.parametrize(
    ("path", "content_type", "body"),
    [
        ("/v1/predictions", "image/jpeg", FOREST_BYTES),
        ("/v1/predictions?top_k=3", "image/jpeg", FOREST_BYTES),
        ("/predict-land-use", "multipart/form-data; boundary=b", in_form(FOREST_BYTES)),
        ("/v2/models/efficientnetb0/infer", "application/json", b"{}"),
    ],
    ids=["raw", "with parameters", "multipart", "inference"],
)
def test_an_image_that_is_held_back_does_not_outlive_a_revocation(
    gateway: Gateway, path: str, content_type: str, body: bytes
) -> None:
    """T9: a token that is revoked while the gateway waits for the image gets no prediction and no entry."""
    before = gateway.client().get("/v1/predictions").json()["entries"]
    assert send_body_after_revocation(gateway, path, content_type, body) == (401, "invalid_token")
    assert gateway.client().get("/v1/predictions").json()["entries"] == before


def test_tokens_in_queries_are_ignored_and_token_responses_are_not_stored(gateway: Gateway) -> None:
    """T8: a token in the query is ignored, token responses are `no-store`, and a challenge names the missing scope."""
    response = gateway.log_in()
    token = response.json()["access_token"]
    assert response.headers["cache-control"] == "no-store"
    in_query = gateway.get("/v1/me", params={"access_token": token, "token": token})
    assert in_query.status_code == 401
    assert in_query.headers["www-authenticate"].startswith("Bearer")
    operator = {"Authorization": f"Bearer {gateway.token('olga')}"}
    forbidden = gateway.post("/v1/predictions", headers=operator, content=b"x")
    assert forbidden.status_code == 403
    assert 'error="insufficient_scope"' in forbidden.headers["www-authenticate"]


def test_a_revocation_holds_in_every_process(gateway: Gateway, second_gateway: Gateway) -> None:
    """T9: another process that has accepted a token rejects it soon after its revocation; an unknown token is a 200."""
    pair = gateway.log_in().json()
    token = pair["access_token"]
    assert get_me(gateway, token).status_code == get_me(second_gateway, token).status_code == 200
    form = {"token": pair["refresh_token"], "client_id": "atalaya-first-party"}
    assert gateway.post("/auth/revoke", data=form).status_code == 200
    assert get_me(gateway, token).status_code == 401
    wait_until(lambda: get_me(second_gateway, token).status_code == 401, within_s=REVOKED_WITHIN_S)
    assert gateway.post("/auth/revoke", data={**form, "token": "atr_unknown"}).status_code == 200


@contextmanager
def unreadable_changes(gateway: Gateway) -> Iterator[None]:
    """Within the block, the database accepts changes of credentials, but reading them fails."""
    with closing(sqlite3.connect(gateway.database_path)) as database:
        database.executescript("""
            BEGIN IMMEDIATE;
            ALTER TABLE changes RENAME TO kept_changes;
            CREATE VIEW changes AS SELECT * FROM kept_changes WHERE json(target || ' is no JSON');
            CREATE TRIGGER keep INSTEAD OF INSERT ON changes
            BEGIN INSERT INTO kept_changes VALUES (NEW.seq, NEW.target, NEW.revoked, NEW.expires_at); END;
            COMMIT;
        """)
        try:
            yield
        finally:
            database.executescript(
                "BEGIN IMMEDIATE; DROP VIEW changes; ALTER TABLE kept_changes RENAME TO changes; COMMIT"
            )


def test_a_change_that_cannot_be_read_at_once_is_a_success(gateway: Gateway) -> None:
    """A rotation that is committed returns the key's new secret, even if the database fails right afterwards."""
    client = gateway.client()
    key = client.post("/v1/keys", json={"name": "rotated"}).json()
    assert gateway.get("/v1/me", headers={"X-API-Key": key["key"]}).status_code == 200
    with unreadable_changes(gateway):
        rotated = client.post(f"/v1/keys/{key['id']}/rotate", json={"overlap_hours": 0})
        assert rotated.status_code == 200, rotated.text
        wait_until(lambda: "revocations_unreachable" in gateway.log())
    wait_until(lambda: gateway.get("/v1/me", headers={"X-API-Key": key["key"]}).status_code == 401)
    assert gateway.get("/v1/me", headers={"X-API-Key": rotated.json()["key"]}).status_code == 200


def test_introspection_needs_credentials(gateway: Gateway) -> None:
    """T10: introspection without credentials gets a 401; any token but the caller's own is reported as inactive."""
    token = gateway.token()
    assert gateway.post("/auth/introspect", data={"token": token}).status_code == 401
    headers = {"Authorization": f"Bearer {token}"}
    assert gateway.post("/auth/introspect", data={"token": token}, headers=headers).json()["active"] is True
    for other in ("x", "atr_x", gateway.token("olga")):
        response = gateway.post("/auth/introspect", data={"token": other}, headers=headers)
        assert response.json() == {"active": False}


def test_the_password_grant_can_be_switched_off(new_gateway: Callable[..., Gateway]) -> None:
    """T11: with AUTH__PASSWORD_GRANT=false a correct password gets no token."""
    response = new_gateway(AUTH__PASSWORD_GRANT="false").log_in("ana", PASSWORD)
    assert (response.status_code, response.json()["error"]) == (400, "unsupported_grant_type")
