"""Threat T41 on a running gateway without rate limits: callers who keep it busy with hashing passwords."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.support.gateway import PASSWORD, Gateway
from tests.support.login_load import attack, attacked_gateway, list_attacks


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    """A gateway with the accounts of two attackers and four others."""
    with attacked_gateway() as gateway:
        yield gateway


@pytest.mark.parametrize(
    "description",
    ["two users confirm their passwords", "two users log in from one address", "one address tries unknown names"],
)
def test_attackers_do_not_keep_others_from_logging_in(gateway: Gateway, description: str) -> None:
    """T41: while attackers make the gateway hash without pause, every login of the other users succeeds in time."""
    results = asyncio.run(attack(gateway.port, list_attacks(gateway)[description], 2))
    assert results.missed == []


def test_a_user_s_password_checks_are_limited(gateway: Gateway, tmp_path_factory: pytest.TempPathFactory) -> None:
    """T41: the routes that check a caller's own password or code share one rate limit for each user."""
    limited = gateway.replica(tmp_path_factory.mktemp("limited"), LIMITS__PASSWORD="4/hour")
    limited.start()
    try:
        eve, mallory = limited.client("eve"), limited.client("mallory")
        change = {"current_password": PASSWORD, "new_password": PASSWORD}
        requests = [
            ("POST", "/v1/me/totp", {"current_password": PASSWORD}, 409),
            ("POST", "/v1/me/totp/confirm", {"code": "123456"}, 409),
            ("DELETE", "/v1/me/totp", {"code": "123456"}, 409),
            ("POST", "/v1/me/password", change, 204),
        ]
        for method, path, body, status in requests:
            assert eve.request(method, path, json=body).status_code == status
        for method, path, body, _ in requests:
            response = eve.request(method, path, json=body)
            assert (response.status_code, response.json()["code"]) == (429, "rate_limited")
            assert int(response.headers["retry-after"]) >= 1
        assert eve.get("/v1/me").status_code == 200
        assert mallory.post("/v1/me/totp", json={"current_password": PASSWORD}).status_code == 409
    finally:
        limited.stop()
