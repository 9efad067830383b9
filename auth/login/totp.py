"""One-time codes as a second factor (RFC 6238); the secrets are stored encrypted."""

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
from storage.transactions import reading, writing

STEP_S = 30
_DRIFT_STEPS = (0, -1, 1)  # a clock may be half a minute off
_CODE = re.compile(r"[0-9]{6}")

log = structlog.get_logger("atalaya.totp")


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What an authenticator app needs; `uri` is `otpauth://…`, for a QR code. No other copy is readable."""

    secret: str = field(repr=False)
    uri: str = field(repr=False)


class OneTimeCodes:
    """Every method raises DatabaseUnavailable. `data_key` encrypts the secrets; without it nobody can enrol."""

    def __init__(self, engine: AsyncEngine, data_key: str | None, clock: Callable[[], float] = time.time) -> None:
        self._engine = engine
        self._box = Fernet(data_key) if data_key is not None else None
        self._clock = clock

    async def begin(self, user: User) -> Enrolment:
        """Make a secret, which counts for nothing until it is confirmed. Raises TotpConflict."""
        if self._box is None:
            raise TotpConflict("The gateway has no key to keep the secret with. Set AUTH__DATA_KEY.")
        secret = pyotp.random_base32()
        sealed = self._box.encrypt(secret.encode()).decode()
        unconfirmed = users.c.id == user.id, users.c.totp_confirmed_at.is_(None)
        statement = update(users).where(*unconfirmed).values(totp_secret=sealed, totp_last_step=None)
        async with writing(self._engine) as connection:
            if (await connection.execute(statement)).rowcount == 0:
                raise TotpConflict("One-time codes are on already. Remove them first.")
        return Enrolment(secret, pyotp.TOTP(secret).provisioning_uri(name=user.name, issuer_name="Atalaya"))

    async def confirm(self, user: User, code: str, keep_session: str | None = None) -> None:
        """Switch the codes on, and end the user's other log-ins, which had none. Raises BadCode, TotpConflict."""
        if user.totp:
            raise TotpConflict("One-time codes are on already. There is nothing to confirm.")
        now = datetime.now(UTC)
        others = sessions.c.user_id == user.id, sessions.c.id != (keep_session or "")
        await self._spend(user, code, others, totp_confirmed_at=now)

    async def check(self, user: User, code: str) -> None:
        """Use a code up. Raises BadCode."""
        try:
            await self._spend(user, code)
        except TotpConflict:  # switched off since the user was read
            raise BadCode from None

    async def remove(self, user: User, code: str) -> None:
        """Switch the codes off, for one of them. Raises BadCode, TotpConflict."""
        await self._spend(user, code, totp_secret=None, totp_confirmed_at=None)

    async def _spend(self, user: User, code: str, end: tuple[Any, ...] = (), **values: Any) -> None:
        """Change the user's columns together with the step of the code: a code counts once."""
        async with reading(self._engine) as connection:
            statement = select(users.c.totp_secret).where(users.c.id == user.id)
            sealed = (await connection.execute(statement)).scalar_one_or_none()
        if sealed is None:
            raise TotpConflict("There are no one-time codes. Begin with POST /v1/me/totp.")
        step = self._step_of(self._open(sealed), code)
        unused = or_(users.c.totp_last_step.is_(None), users.c.totp_last_step < step)
        same = users.c.id == user.id, users.c.totp_secret == sealed
        async with writing(self._engine) as connection:
            spent = update(users).where(*same, unused).values(totp_last_step=step, **values)
            if (await connection.execute(spent)).rowcount == 0:
                raise BadCode
            if end:
                await end_sessions(connection, *end)

    def _open(self, sealed: str) -> str:
        """Raises BadCode: nobody passes because a key was lost; `atalaya users totp-reset` helps."""
        try:
            if self._box is None:
                raise InvalidToken
            return self._box.decrypt(sealed).decode()
        except InvalidToken:
            log.error("totp_unreadable", remedy="Set AUTH__DATA_KEY to what it was, or reset the user's codes.")
            raise BadCode from None

    def _step_of(self, secret: str, code: str) -> int:
        """The half minute that the code belongs to. Raises BadCode."""
        code = code.replace(" ", "")
        if not _CODE.fullmatch(code):
            raise BadCode
        totp, now = pyotp.TOTP(secret), int(self._clock()) // STEP_S
        for step in (now + drift for drift in _DRIFT_STEPS):
            if hmac.compare_digest(totp.generate_otp(step), code):
                return step
        raise BadCode
