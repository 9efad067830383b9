"""The text form of timestamps: hashed, stored and compared as text."""

from __future__ import annotations

from datetime import UTC, datetime

_HOUR_LENGTH = len("2026-11-03T09")


def format_timestamp(moment: datetime) -> str:
    """Format an aware datetime as UTC in ISO 8601 with microseconds; the texts sort in order of time."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def parse_timestamp(timestamp: str) -> datetime:
    """Return the time. Raises ValueError, TypeError, OverflowError for text that `format_timestamp` never returns."""
    moment = datetime.fromisoformat(timestamp)
    if format_timestamp(moment) != timestamp:
        raise ValueError(f"{timestamp!r} is not a timestamp")
    return moment


def get_hour(timestamp: str) -> str:
    """Return the hour of a valid timestamp, such as 2026-11-03T09."""
    return timestamp[:_HOUR_LENGTH]
