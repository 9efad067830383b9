"""The version of a user's credentials, which lets the later steps of a login detect a change."""

from __future__ import annotations

import hashlib
from datetime import datetime


def credentials_version(password_hash: str, totp_confirmed_at: datetime | None) -> str:
    """Return a digest that changes with the password hash, and when one-time codes are confirmed or removed."""
    confirmed = totp_confirmed_at.isoformat() if totp_confirmed_at else ""
    return hashlib.sha256(f"{password_hash} {confirmed}".encode()).hexdigest()
