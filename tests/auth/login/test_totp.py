"""One-time codes, on both databases."""

from __future__ import annotations

import asyncio

import pyotp
import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from auth.accounts.passwords import PasswordHasher
from auth.accounts.service import AccountService
from auth.accounts.store import User, UserChange, UserStore
from auth.errors import BadCode, BadCredentials, InvalidGrant, MissingCode, TooManyGuesses, TotpConflict
from auth.login.data_keys import is_data_key, new_data_key
from auth.login.service import LoginService
from auth.login.throttle import LoginThrottle
from auth.login.totp import STEP_S, Enrolment, OneTimeCodes
from auth.principal import Role, Scope
from auth.sessions import SessionStore
from auth.tables import users

PASSWORD = "walnut ferry quiet lamp"
HERE = "192.0.2.1"


class Clock:
    """Stands still until it is moved by whole steps."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now

    def code(self, enrolment: Enrolment, drift: int = 0) -> str:
        return pyotp.TOTP(enrolment.secret).at(int(self.now) + drift * STEP_S)

    def move(self, steps: int = 1) -> None:
        self.now += steps * STEP_S


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def key() -> str:
    return new_data_key()


@pytest.fixture
def codes(engine: AsyncEngine, key: str, clock: Clock) -> OneTimeCodes:
    return OneTimeCodes(engine, key, clock)


@pytest.fixture
def store(engine: AsyncEngine) -> UserStore:
    return UserStore(engine)


@pytest.fixture
async def ada(store: UserStore) -> User:
    return await store.add("ada", Role.ADMIN, "hash")


@pytest.fixture
async def enrolment(codes: OneTimeCodes, ada: User, clock: Clock) -> Enrolment:
    """Ada's codes are on; the code that confirmed them is used up."""
    enrolment = await codes.begin(ada)
    await codes.confirm(ada, clock.code(enrolment))
    clock.move()
    return enrolment


async def test_a_code_of_the_app_counts(codes: OneTimeCodes, ada: User, enrolment: Enrolment, clock: Clock) -> None:
    """The newest code is taken, with or without the space that apps show."""
    code = clock.code(enrolment)
    await codes.check(ada, f"{code[:3]} {code[3:]}")


async def test_codes_are_those_of_the_rfc(codes: OneTimeCodes, ada: User) -> None:
    """The URI tells an app SHA-1, six digits and half a minute: what all of them can."""
    enrolment = await codes.begin(ada)
    parsed = pyotp.parse_uri(enrolment.uri)
    assert isinstance(parsed, pyotp.TOTP)
    assert (parsed.secret, parsed.digits, parsed.interval) == (enrolment.secret, 6, STEP_S)
    assert (parsed.name, parsed.issuer) == ("ada", "Atalaya")
    assert len(enrolment.secret) == 32
    assert enrolment.secret not in repr(enrolment)


async def test_a_code_counts_once(codes: OneTimeCodes, ada: User, enrolment: Enrolment, clock: Clock) -> None:
    """A code that was used is refused, and so is every earlier one."""
    await codes.check(ada, clock.code(enrolment))
    for drift in (0, -1):
        with pytest.raises(BadCode):
            await codes.check(ada, clock.code(enrolment, drift))
    clock.move()
    await codes.check(ada, clock.code(enrolment))


async def test_of_two_uses_at_once_one_wins(codes: OneTimeCodes, ada: User, enrolment: Enrolment, clock: Clock) -> None:
    """A race over one code is won once."""
    code = clock.code(enrolment)
    outcomes = await asyncio.gather(*(codes.check(ada, code) for _ in range(6)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes].count(BadCode) == 5


async def test_clocks_may_be_half_a_minute_off(
    codes: OneTimeCodes, ada: User, enrolment: Enrolment, clock: Clock
) -> None:
    """One step before and after is taken, two are not."""
    clock.move(5)
    for drift in (-2, 2):
        with pytest.raises(BadCode):
            await codes.check(ada, clock.code(enrolment, drift))
    for drift in (-1, 0, 1):
        await codes.check(ada, clock.code(enrolment, drift))


@pytest.mark.usefixtures("enrolment")
@pytest.mark.parametrize(
    "code",
    [
        "",
        "12345",
        "1234567",
        "abcdef",
        "-12345",
        "\uff11\uff12\uff13\uff14\uff15\uff16",
        "000000\n",
        "\ud800",
        "9" * 9999,
    ],
)
async def test_what_is_no_code_is_refused(codes: OneTimeCodes, ada: User, code: str) -> None:
    """Anything but six ASCII digits is a wrong code."""
    with pytest.raises(BadCode):
        await codes.check(ada, code)


async def test_unconfirmed_codes_ask_for_nothing(
    codes: OneTimeCodes, store: UserStore, ada: User, clock: Clock
) -> None:
    """A secret counts from its confirmation on; until then another one replaces it."""
    first = await codes.begin(ada)
    assert not (await store.get(ada.id)).totp
    second = await codes.begin(ada)
    with pytest.raises(BadCode):
        await codes.confirm(ada, clock.code(first))
    await codes.confirm(ada, clock.code(second))
    assert (await store.get(ada.id)).totp


async def test_codes_that_are_on_stay(
    codes: OneTimeCodes, store: UserStore, enrolment: Enrolment, clock: Clock
) -> None:
    """A stolen session cannot replace the secret, nor confirm one again."""
    ada = (await store.list())[0]
    with pytest.raises(TotpConflict):
        await codes.begin(ada)
    with pytest.raises(TotpConflict):
        await codes.confirm(ada, clock.code(enrolment))
    await codes.check(ada, clock.code(enrolment))


async def test_confirming_ends_the_other_log_ins(
    engine: AsyncEngine, codes: OneTimeCodes, ada: User, clock: Clock
) -> None:
    """Log-ins that were made without a code end; the one that confirmed goes on."""
    sessions = SessionStore(engine, 3600)
    mine, other = [await sessions.begin(ada.id, frozenset({Scope.PREDICT})) for _ in range(2)]
    await codes.confirm(ada, clock.code(await codes.begin(ada)), mine.id)
    assert (await sessions.rotate(mine.refresh_token)).id == mine.id
    with pytest.raises(InvalidGrant):
        await sessions.rotate(other.refresh_token)


async def test_removing_needs_a_code(
    codes: OneTimeCodes, store: UserStore, ada: User, enrolment: Enrolment, clock: Clock
) -> None:
    """Codes are switched off for one that is right, and there is nothing to switch off afterwards."""
    with pytest.raises(BadCode):
        await codes.remove(ada, "000000" if clock.code(enrolment) != "000000" else "111111")
    assert (await store.get(ada.id)).totp
    await codes.remove(ada, clock.code(enrolment))
    assert not (await store.get(ada.id)).totp
    clock.move()
    with pytest.raises(TotpConflict):
        await codes.remove(ada, clock.code(enrolment))
    with pytest.raises(BadCode):
        await codes.check(ada, clock.code(enrolment))


async def test_an_administrator_can_reset_codes(codes: OneTimeCodes, store: UserStore, enrolment: Enrolment) -> None:
    """Who has lost the app is let in without a code, and can begin anew."""
    (ada,) = await store.list()
    reset = await store.change(ada.id, UserChange(reset_totp=True))
    assert not reset.totp
    assert (await codes.begin(reset)).secret != enrolment.secret


async def test_the_secret_is_stored_encrypted(engine: AsyncEngine, enrolment: Enrolment) -> None:
    """A copy of the database makes no codes."""
    async with engine.connect() as connection:
        stored = (await connection.execute(select(users.c.totp_secret))).scalar_one()
    assert enrolment.secret not in stored
    assert len(stored) <= 255


async def test_without_the_key_nobody_enrols_and_nobody_passes(
    engine: AsyncEngine, ada: User, enrolment: Enrolment, clock: Clock, store: UserStore
) -> None:
    """No key, no enrolment; a lost or another key lets nobody past the second factor."""
    grace = await store.add("grace", Role.CLIENT, "hash")
    with pytest.raises(TotpConflict, match="AUTH__DATA_KEY"):
        await OneTimeCodes(engine, None, clock).begin(grace)
    for other in (None, new_data_key()):
        with pytest.raises(BadCode):
            await OneTimeCodes(engine, other, clock).check(ada, clock.code(enrolment))


def test_a_data_key_has_256_bits() -> None:
    """Only 32 bytes in base64 are a key."""
    assert is_data_key(new_data_key())
    for text in ("", "short", "x" * 44, new_data_key()[:-4], "\ud800"):
        assert not is_data_key(text)


@pytest.fixture
async def logins(
    engine: AsyncEngine, codes: OneTimeCodes, store: UserStore, hasher: PasswordHasher, clock: Clock
) -> LoginService:
    """Ada logs in with a password and a code."""
    accounts = AccountService(store, hasher)
    ada = await accounts.add("ada", Role.ADMIN, PASSWORD)
    await codes.confirm(ada, clock.code(await codes.begin(ada)))
    return LoginService(accounts, LoginThrottle(engine), codes)


async def test_the_password_comes_first(logins: LoginService) -> None:
    """A wrong password is told as ever, code or not; only the right one brings up that a code is missing."""
    for code in ("", "123456"):
        with pytest.raises(BadCredentials):
            await logins.log_in("ada", "another ferry, loud lamp", code, HERE)
    with pytest.raises(MissingCode):
        await logins.log_in("ada", PASSWORD, "", HERE)


async def test_guessing_codes_is_slowed(logins: LoginService) -> None:
    """Wrong codes count as wrong passwords do; that a code was missing does not count."""
    for _ in range(5):
        with pytest.raises(MissingCode):
            await logins.log_in("ada", PASSWORD, "", HERE)
    for _ in range(3):
        with pytest.raises(BadCode):
            await logins.log_in("ada", PASSWORD, "abcdef", HERE)
    with pytest.raises(TooManyGuesses):
        await logins.log_in("ada", PASSWORD, "abcdef", HERE)
