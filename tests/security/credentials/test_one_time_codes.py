"""Threat T40: guessing one-time codes with a known password, on a running gateway."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import httpx
import pyotp
import pytest

from auth.login.data_keys import new_data_key
from tests.support.gateway import PASSWORD, TIMEOUT_S, Gateway, running_gateway

# Each wait is longer than the one before, so an attacker who never pauses is soon delayed.
MAX_ATTEMPTS = 12
CONFIRMATION = {"current_password": PASSWORD}


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    """A gateway without a rate limit on passwords: the throttle alone must slow the guesses down."""
    limits = {"LIMITS__TOKEN": "100000/minute", "LIMITS__PASSWORD": "100000/minute"}
    with running_gateway(None, MODEL__URL="stub://", AUTH__DATA_KEY=new_data_key(), **limits) as gateway:
        gateway.add_user("bob")
        gateway.add_user("cleo")
        yield gateway


class Caller:
    """A user who calls from one of this machine's own addresses, so that no other test's failures delay this one."""

    def __init__(self, gateway: Gateway, name: str, source: str) -> None:
        self._name = name
        transport = httpx.HTTPTransport(local_address=source)
        self._client = httpx.Client(base_url=gateway.base_url, transport=transport, timeout=TIMEOUT_S)
        gateway.clients.append(self._client)
        self._client.headers["Authorization"] = f"Bearer {self.log_in().json()['access_token']}"

    def log_in(self, code: str = "", scope: str = "") -> httpx.Response:
        form = {"grant_type": "password", "username": self._name, "password": PASSWORD, "totp": code, "scope": scope}
        return self._client.post("/auth/token", data=form)

    def begin(self) -> httpx.Response:
        return self._client.post("/v1/me/totp", json=CONFIRMATION)

    def confirm(self, code: str) -> httpx.Response:
        return self._client.post("/v1/me/totp/confirm", json={"code": code})

    def remove(self, code: str) -> httpx.Response:
        return self._client.request("DELETE", "/v1/me/totp", json={"code": code})


def test_a_rejected_scope_does_not_use_up_the_code(gateway: Gateway) -> None:
    """T40: a login that requests a scope beyond the role is rejected; the same code then logs in, once."""
    caller = Caller(gateway, "cleo", "127.5.6.1")
    totp = pyotp.TOTP(caller.begin().raise_for_status().json()["secret"])
    caller.confirm(totp.now()).raise_for_status()
    code = totp.at(datetime.now(UTC) + timedelta(seconds=30))  # the next one, which is accepted already
    responses = [caller.log_in(code, scope) for scope in ("predict users:admin", "predict", "predict")]
    assert [response.status_code for response in responses] == [400, 200, 400]
    assert [responses[number].json()["error"] for number in (0, 2)] == ["invalid_scope", "invalid_grant"]


def guess_until_delayed(guess: Callable[[str], httpx.Response], send_password: Callable[[], None]) -> None:
    """Send wrong codes, and the right password after each of them, until a code gets a 429."""
    responses: list[httpx.Response] = []
    while not responses or responses[-1].status_code != 429:
        assert len(responses) < MAX_ATTEMPTS, "no guess was delayed"
        responses.append(guess("12345x"))
        send_password()
    assert len(responses) > 3
    assert "as `totp` to log in, as `code` to set up or remove one-time codes" in responses[0].text
    assert 1 <= int(responses[-1].headers["retry-after"]) <= 60


@pytest.mark.parametrize(("name", "route"), [("ana", "log_in"), ("olga", "remove")])
def test_a_right_password_does_not_allow_more_attempts_at_the_code(gateway: Gateway, name: str, route: str) -> None:
    """T40: wrong codes delay further codes whatever passwords are sent in between; the password itself still works."""
    caller = Caller(gateway, name, f"127.5.{len(name)}.1")
    secret = caller.begin().raise_for_status().json()["secret"]
    caller.confirm(pyotp.TOTP(secret).now()).raise_for_status()

    def send_password() -> None:
        # A code is missing, or codes are already enabled: the password was right.
        assert [caller.log_in().status_code, caller.begin().status_code] == [400, 409]

    guess_until_delayed(getattr(caller, route), send_password)


def test_codes_that_confirm_a_new_secret_are_delayed(gateway: Gateway) -> None:
    """T40: wrong codes that would confirm a new secret are delayed, even if a right password follows each of them."""
    caller = Caller(gateway, "bob", "127.5.5.1")
    caller.begin().raise_for_status()
    guess_until_delayed(caller.confirm, lambda: None if caller.begin().is_success else pytest.fail("not begun"))
