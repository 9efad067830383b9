"""The text form of timestamps: hashed, stored and compared as text."""

from __future__ import annotations

from datetime import UTC, datetime

_HOUR_LENGTH = len("2026-11-03T09")


def format_timestamp(moment: datetime) -> str:
    """Format an aware datetime as UTC in ISO 8601 with microseconds; the texts sort in order of time."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def read_hour(timestamp: str) -> str:
    """Return the hour of a timestamp, such as 2026-11-03T09.

    Raises ValueError, TypeError, OverflowError for anything that `format_timestamp` does not return.
    """
    if format_timestamp(datetime.fromisoformat(timestamp)) != timestamp:
        raise ValueError(f"{timestamp!r} is no timestamp")
    return timestamp[:_HOUR_LENGTH]
