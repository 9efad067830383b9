"""Lines 6 to 11: rotation, revocation and introspection on running gateways."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from auth.tokens.jws import generate_signing_key, read_header
from auth.tokens.keyring import ACTIVATION_DELAY

PASSWORD = "correct horse battery"


def log_in(gateway: Any, **changes: str) -> httpx.Response:
    form = {"grant_type": "password", "username": "ana", "password": PASSWORD, **changes}
    return httpx.post(f"{gateway.base_url}/auth/token", data=form)


def refresh(gateway: Any, token: str) -> httpx.Response:
    form = {"grant_type": "refresh_token", "refresh_token": token}
    return httpx.post(f"{gateway.base_url}/auth/token", data=form)


def me(gateway: Any, token: str, url: str | None = None) -> httpx.Response:
    return httpx.get(f"{url or gateway.base_url}/v1/me", headers={"Authorization": f"Bearer {token}"})


def wait_until(done: Callable[[], bool], seconds: float) -> float:
    """Seconds until `done`; fails after `seconds`."""
    began = time.monotonic()
    while not done():
        assert time.monotonic() - began < seconds
    return time.monotonic() - began


@pytest.fixture
def second_gateway(gateway: Any, tmp_path: Path) -> Any:
    """Another process on the first one's database and keys, under the same issuer."""
    changes = {"PORT": gateway.free_port(), "METRICS_PORT": gateway.free_port()}
    issuer = f"http://localhost:{gateway.environment['PORT']}"
    other = type(gateway)(tmp_path, {**gateway.environment, **changes, "AUTH__ISSUER": issuer})
    other.start()
    yield other
    other.stop()


def test_line_06_keys_rotate_and_nobody_is_logged_out(new_gateway: Any, tmp_path: Path) -> None:
    """Rotated while it runs, the gateway takes tokens of the old key, publishes both and signs with the new one."""
    path = tmp_path / "keys.pem"
    path.write_text(generate_signing_key("ES256"))
    gateway = new_gateway(AUTH__SIGNING_KEY_FILE=str(path))
    old = log_in(gateway).json()["access_token"]
    rotated = gateway.run("keys", "rotate")
    assert rotated.returncode == 0, rotated.stderr
    published = f"{gateway.base_url}/.well-known/jwks.json"
    wait_until(lambda: len(httpx.get(published).json()["keys"]) == 2, 5)
    assert me(gateway, old).status_code == 200

    def signs_anew() -> bool:
        return read_header(log_in(gateway).json()["access_token"])["kid"] != read_header(old)["kid"]

    wait_until(signs_anew, ACTIVATION_DELAY.total_seconds() + 10)
    assert me(gateway, old).status_code == 200


def test_line_07_refresh_tokens_rotate_and_reuse_revokes_the_family(gateway: Any) -> None:
    """A refresh token works once; its second use ends the newest refresh and access tokens of the log-in too."""
    first = log_in(gateway).json()
    second = refresh(gateway, first["refresh_token"]).json()
    assert second["refresh_token"] != first["refresh_token"]
    assert me(gateway, second["access_token"]).status_code == 200
    reused = refresh(gateway, first["refresh_token"])
    assert (reused.status_code, reused.json()["error"]) == (400, "invalid_grant")
    assert refresh(gateway, second["refresh_token"]).status_code == 400
    assert me(gateway, second["access_token"]).status_code == 401


def test_line_02_a_refresh_token_is_no_access_token(gateway: Any) -> None:
    """Neither kind of token is taken for the other."""
    pair = log_in(gateway).json()
    assert me(gateway, pair["refresh_token"]).status_code == 401
    assert refresh(gateway, pair["access_token"]).status_code == 400


def test_line_08_no_token_in_a_query_and_no_answer_is_stored(gateway: Any) -> None:
    """A token in the query is not read; token answers are not to be stored; challenges say what is missing."""
    answer = log_in(gateway)
    token = answer.json()["access_token"]
    assert answer.headers["cache-control"] == "no-store"
    in_query = httpx.get(f"{gateway.base_url}/v1/me", params={"access_token": token, "token": token})
    assert in_query.status_code == 401
    assert in_query.headers["www-authenticate"].startswith("Bearer")
    forbidden = httpx.post(
        f"{gateway.base_url}/v1/predictions",
        headers={"Authorization": f"Bearer {log_in(gateway, username='olga').json()['access_token']}"},
        content=b"x",
    )
    assert forbidden.status_code == 403
    assert 'error="insufficient_scope"' in forbidden.headers["www-authenticate"]


def test_line_09_a_revocation_holds_everywhere_within_a_second(gateway: Any, second_gateway: Any) -> None:
    """A token that both processes have accepted is refused by the other one within a second of its revocation."""
    pair = log_in(gateway).json()
    token = pair["access_token"]
    assert me(gateway, token).status_code == me(second_gateway, token).status_code == 200
    form = {"token": pair["refresh_token"], "client_id": "atalaya-first-party"}
    assert httpx.post(f"{gateway.base_url}/auth/revoke", data=form).status_code == 200
    assert me(gateway, token).status_code == 401
    assert wait_until(lambda: me(second_gateway, token).status_code == 401, 5) < 1
    unknown = {**form, "token": "atr_unknown"}
    assert httpx.post(f"{gateway.base_url}/auth/revoke", data=unknown).status_code == 200


def test_line_10_introspection_needs_a_login(gateway: Any) -> None:
    """Without a login 401; for a token that does not count, `active` is false and nothing else is said."""
    pair = log_in(gateway).json()
    url = f"{gateway.base_url}/auth/introspect"
    assert httpx.post(url, data={"token": pair["access_token"]}).status_code == 401
    headers = {"Authorization": f"Bearer {pair['access_token']}"}
    assert httpx.post(url, data={"token": pair["access_token"]}, headers=headers).json()["active"] is True
    other = log_in(gateway, username="olga").json()["access_token"]
    for token in ("x", "atr_x", other):
        assert httpx.post(url, data={"token": token}, headers=headers).json() == {"active": False}


def test_line_11_the_password_grant_can_be_switched_off(new_gateway: Any) -> None:
    """With the setting off, a right password gets no token."""
    refused = log_in(new_gateway(AUTH__PASSWORD_GRANT="false"))
    assert (refused.status_code, refused.json()["error"]) == (400, "unsupported_grant_type")
