"""The text form of timestamps: hashed, stored and compared as text."""

from __future__ import annotations

from datetime import UTC, datetime


def format_timestamp(moment: datetime) -> str:
    """Format an aware datetime as UTC in ISO 8601 with microseconds; the texts sort in order of time."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
