"""One-time codes, on both databases."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pyotp
import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from auth.accounts.passwords import PasswordHasher
from auth.accounts.service import AccountService
from auth.accounts.store import User, UserChange, UserStore
from auth.errors import BadCode, BadCredentials, InvalidGrant, LoginThrottled, MissingCode, TotpConflict
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
    """A clock that the test moves by whole steps."""

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
    """Enable codes for ada, and move the clock past the code that confirmed them."""
    enrolment = await codes.begin(ada)
    await codes.confirm(ada, clock.code(enrolment))
    clock.move()
    return enrolment


async def test_a_current_code_is_accepted(codes: OneTimeCodes, ada: User, enrolment: Enrolment, clock: Clock) -> None:
    """The current code is accepted, even with the space that authenticator apps show."""
    code = clock.code(enrolment)
    await codes.check(ada, f"{code[:3]} {code[3:]}")


async def test_codes_follow_rfc_6238(codes: OneTimeCodes, ada: User) -> None:
    """The URI requests SHA-1, six digits and 30 seconds, which all authenticator apps support."""
    enrolment = await codes.begin(ada)
    parsed = pyotp.parse_uri(enrolment.uri)
    assert isinstance(parsed, pyotp.TOTP)
    assert (parsed.secret, parsed.digits, parsed.interval) == (enrolment.secret, 6, STEP_S)
    assert (parsed.name, parsed.issuer) == ("ada", "Atalaya")
    assert len(enrolment.secret) == 32
    assert enrolment.secret not in repr(enrolment)


async def test_a_code_can_be_used_once(codes: OneTimeCodes, ada: User, enrolment: Enrolment, clock: Clock) -> None:
    """A used code and all earlier ones are rejected."""
    await codes.check(ada, clock.code(enrolment))
    for drift in (0, -1):
        with pytest.raises(BadCode):
            await codes.check(ada, clock.code(enrolment, drift))
    clock.move()
    await codes.check(ada, clock.code(enrolment))


async def test_of_concurrent_uses_one_succeeds(
    codes: OneTimeCodes, ada: User, enrolment: Enrolment, clock: Clock
) -> None:
    """Of six concurrent uses of one code exactly one is accepted."""
    code = clock.code(enrolment)
    outcomes = await asyncio.gather(*(codes.check(ada, code) for _ in range(6)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes].count(BadCode) == 5


async def test_clocks_may_differ_by_half_a_minute(
    codes: OneTimeCodes, ada: User, enrolment: Enrolment, clock: Clock
) -> None:
    """Codes of the previous and the next time step are accepted; codes two steps away are not."""
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
async def test_malformed_codes_are_rejected(codes: OneTimeCodes, ada: User, code: str) -> None:
    """Text other than six ASCII digits is a wrong code."""
    with pytest.raises(BadCode):
        await codes.check(ada, code)


async def test_unconfirmed_codes_are_not_required(
    codes: OneTimeCodes, store: UserStore, ada: User, clock: Clock
) -> None:
    """A secret takes effect when it is confirmed; until then a new one replaces it."""
    first = await codes.begin(ada)
    assert not (await store.get(ada.id)).totp
    second = await codes.begin(ada)
    with pytest.raises(BadCode):
        await codes.confirm(ada, clock.code(first))
    await codes.confirm(ada, clock.code(second))
    assert (await store.get(ada.id)).totp


async def test_enabled_codes_cannot_be_replaced(
    codes: OneTimeCodes, store: UserStore, enrolment: Enrolment, clock: Clock
) -> None:
    """A stolen session can neither replace a confirmed secret nor confirm it again."""
    ada = (await store.list())[0]
    with pytest.raises(TotpConflict):
        await codes.begin(ada)
    with pytest.raises(TotpConflict):
        await codes.confirm(ada, clock.code(enrolment))
    await codes.check(ada, clock.code(enrolment))


async def test_confirming_ends_the_other_sessions(
    engine: AsyncEngine, codes: OneTimeCodes, ada: User, clock: Clock
) -> None:
    """Confirming a secret ends the user's other sessions, which began without a code."""
    sessions = SessionStore(engine, 3600)
    mine, other = [await sessions.begin(ada.id, ada.credentials_version, frozenset({Scope.PREDICT})) for _ in range(2)]
    await codes.confirm(ada, clock.code(await codes.begin(ada)), mine.id)
    assert (await sessions.rotate(mine.refresh_token)).id == mine.id
    with pytest.raises(InvalidGrant):
        await sessions.rotate(other.refresh_token)


async def test_removing_codes_requires_a_code(
    codes: OneTimeCodes, store: UserStore, ada: User, enrolment: Enrolment, clock: Clock
) -> None:
    """Codes are removed only with a right code; removing them again fails."""
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
    """After a reset a user needs no code, and can enrol again with another secret."""
    (ada,) = await store.list()
    reset = await store.change(ada.id, UserChange(reset_totp=True))
    assert not reset.totp
    assert (await codes.begin(reset)).secret != enrolment.secret


async def test_the_secret_is_stored_encrypted(engine: AsyncEngine, enrolment: Enrolment) -> None:
    """The database does not contain the secret in plaintext."""
    async with engine.connect() as connection:
        stored = (await connection.execute(select(users.c.totp_secret))).scalar_one()
    assert enrolment.secret not in stored
    assert len(stored) <= 255


async def test_without_the_data_key_no_code_is_accepted(
    engine: AsyncEngine, ada: User, enrolment: Enrolment, clock: Clock, store: UserStore
) -> None:
    """Without a data key users cannot enrol; with a lost or different key no code is accepted."""
    grace = await store.add("grace", Role.CLIENT, "hash")
    with pytest.raises(TotpConflict, match="AUTH__DATA_KEY"):
        await OneTimeCodes(engine, None, clock).begin(grace)
    for other in (None, new_data_key()):
        with pytest.raises(BadCode):
            await OneTimeCodes(engine, other, clock).check(ada, clock.code(enrolment))


def test_a_data_key_has_256_bits() -> None:
    """A data key is exactly 32 bytes in base64."""
    assert is_data_key(new_data_key())
    for text in ("", "short", "x" * 44, new_data_key()[:-4], "\ud800"):
        assert not is_data_key(text)


@pytest.fixture
async def logins(
    engine: AsyncEngine, codes: OneTimeCodes, store: UserStore, hasher: PasswordHasher, clock: Clock
) -> LoginService:
    """Create ada, who needs a password and a code."""
    accounts = AccountService(store, hasher)
    ada = await accounts.add("ada", Role.ADMIN, PASSWORD)
    await codes.confirm(ada, clock.code(await codes.begin(ada)))
    return LoginService(accounts, LoginThrottle(engine, lambda: datetime.fromtimestamp(clock(), UTC)), codes)


async def test_the_password_is_checked_first(logins: LoginService) -> None:
    """Only the right password reveals that a code is missing; with a wrong one the error is the same either way."""
    for code in ("", "123456"):
        with pytest.raises(BadCredentials):
            await logins.log_in("ada", "another ferry, loud lamp", code, HERE)
    with pytest.raises(MissingCode):
        await logins.log_in("ada", PASSWORD, "", HERE)


async def test_wrong_codes_delay_further_attempts(logins: LoginService) -> None:
    """Wrong codes count as failures like wrong passwords; missing codes do not."""
    for _ in range(5):
        with pytest.raises(MissingCode):
            await logins.log_in("ada", PASSWORD, "", HERE)
    for _ in range(3):
        with pytest.raises(BadCode):
            await logins.log_in("ada", PASSWORD, "abcdef", HERE)
    with pytest.raises(LoginThrottled):
        await logins.log_in("ada", PASSWORD, "abcdef", HERE)
