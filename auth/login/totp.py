"""One-time codes as a second factor (RFC 6238), with encrypted secrets."""

from __future__ import annotations

import hmac
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyotp
import structlog
from cryptography.fernet import Fernet, InvalidToken
from sqlalchemy import or_, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from auth.accounts.store import User
from auth.errors import BadCode, TotpConflict
from auth.sessions import end_sessions
from auth.tables import sessions, users
from storage.transactions import Record, reading, record_nothing, writing

STEP_S = 30
_DRIFT_STEPS = (0, -1, 1)  # clocks may differ by half a minute
_CODE = re.compile(r"[0-9]{6}")

log = structlog.get_logger("atalaya.totp")


@dataclass(frozen=True, slots=True)
class Enrolment:
    """The secret for an authenticator app, which is shown once; `uri` is `otpauth://…`, for a QR code."""

    secret: str = field(repr=False)
    uri: str = field(repr=False)


class OneTimeCodes:
    """Every method raises DatabaseUnavailable. `data_key` encrypts the secrets; without it users cannot enrol.

    `clock` returns seconds since 1970. Methods with the parameter `record` call it in the transaction of their change.
    """

    def __init__(self, engine: AsyncEngine, data_key: str | None, clock: Callable[[], float] = time.time) -> None:
        self._engine = engine
        self._cipher = Fernet(data_key) if data_key is not None else None
        self._clock = clock

    async def begin(self, user: User, *, record: Record[None] = record_nothing) -> Enrolment:
        """Generate a secret, which has no effect until it is confirmed. Raises TotpConflict."""
        if self._cipher is None:
            raise TotpConflict("The gateway has no key to encrypt the secret with. Set AUTH__DATA_KEY.")
        secret = pyotp.random_base32()
        encrypted = self._cipher.encrypt(secret.encode()).decode()
        unconfirmed = users.c.id == user.id, users.c.totp_confirmed_at.is_(None)
        statement = update(users).where(*unconfirmed).values(totp_secret=encrypted, totp_last_step=None)
        async with writing(self._engine) as connection:
            if (await connection.execute(statement)).rowcount == 0:
                raise TotpConflict("One-time codes are already enabled. Remove them first.")
            await record(connection, None)
        return Enrolment(secret, pyotp.TOTP(secret).provisioning_uri(name=user.name, issuer_name="Atalaya"))

    async def confirm(
        self, user: User, code: str, keep_session: str | None = None, *, record: Record[None] = record_nothing
    ) -> None:
        """Enable the codes, and end all other sessions, which began without a code. Raises BadCode, TotpConflict."""
        if user.totp:
            raise TotpConflict("One-time codes are already enabled. There is nothing to confirm.")
        now = datetime.now(UTC)
        others = sessions.c.user_id == user.id, sessions.c.id != (keep_session or "")
        await self._use_code(user, code, others, record=record, totp_confirmed_at=now)

    async def check(self, user: User, code: str, before_use: Callable[[], object] = lambda: None) -> None:
        """Accept a code and mark it as used, unless `before_use` raises an error. Raises BadCode."""
        try:
            await self._use_code(user, code, before_use=before_use)
        except TotpConflict:  # the codes were removed after the user was read
            raise BadCode from None

    async def remove(self, user: User, code: str, *, record: Record[None] = record_nothing) -> None:
        """Disable the codes, if `code` is right. Raises BadCode, TotpConflict."""
        await self._use_code(user, code, record=record, totp_secret=None, totp_confirmed_at=None)

    async def _use_code(
        self,
        user: User,
        code: str,
        ended: tuple[Any, ...] = (),
        before_use: Callable[[], object] = lambda: None,
        record: Record[None] = record_nothing,
        **values: Any,
    ) -> None:
        """Store the step of the code, so that it cannot be used again, and set the user's columns to `values`.

        `ended` holds the conditions that select the sessions to end. Raises BadCode, TotpConflict.
        """
        async with reading(self._engine) as connection:
            stored = select(users.c.totp_secret).where(users.c.id == user.id)
            encrypted = (await connection.execute(stored)).scalar_one_or_none()
        if encrypted is None:
            raise TotpConflict("One-time codes are not set up. Begin with POST /v1/me/totp.")
        step = self._find_step(self._decrypt(encrypted), code)
        before_use()
        unused = or_(users.c.totp_last_step.is_(None), users.c.totp_last_step < step)
        unchanged = users.c.id == user.id, users.c.totp_secret == encrypted
        async with writing(self._engine) as connection:
            statement = update(users).where(*unchanged, unused).values(totp_last_step=step, **values)
            if (await connection.execute(statement)).rowcount == 0:
                raise BadCode
            if ended:
                await end_sessions(connection, *ended)
            await record(connection, None)

    def _decrypt(self, encrypted: str) -> str:
        """Return the secret. Raises BadCode if the data key was lost: that must not disable the second factor."""
        try:
            if self._cipher is None:
                raise InvalidToken
            return self._cipher.decrypt(encrypted).decode()
        except InvalidToken:
            log.error("totp_unreadable", remedy="Restore AUTH__DATA_KEY, or run `atalaya users totp-reset`.")
            raise BadCode from None

    def _find_step(self, secret: str, code: str) -> int:
        """Return the time step (seconds since 1970 / 30) of the code. Raises BadCode."""
        code = code.replace(" ", "")
        if not _CODE.fullmatch(code):
            raise BadCode
        totp, now = pyotp.TOTP(secret), int(self._clock()) // STEP_S
        for step in (now + drift for drift in _DRIFT_STEPS):
            if hmac.compare_digest(totp.generate_otp(step), code):
                return step
        raise BadCode
