"""Enabling one-time codes for a user."""

from __future__ import annotations

import pyotp
from sqlalchemy.ext.asyncio import AsyncEngine

from auth.accounts.store import User
from auth.login.data_keys import new_data_key
from auth.login.totp import OneTimeCodes

_NOW = 1_800_000_000  # a fixed time, because a code expires within a minute, which a busy machine may take


async def enable_codes(engine: AsyncEngine, user: User, keep_session: str | None = None) -> None:
    """Enrol a user and confirm the first code, which ends all sessions but `keep_session`."""
    codes = OneTimeCodes(engine, new_data_key(), lambda: _NOW)
    await codes.confirm(user, pyotp.TOTP((await codes.begin(user)).secret).at(_NOW), keep_session)
