"""Times on the command line."""

from __future__ import annotations

from datetime import UTC, datetime

import typer


def parse_time(text: str) -> datetime:
    """Parse an ISO 8601 time, in UTC unless it has an offset. Raises BadParameter."""
    try:
        parsed = datetime.fromisoformat(text)
        parsed = parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
        return parsed.astimezone(UTC)
    except (ValueError, OverflowError):
        raise typer.BadParameter(f"{text} is not a time such as 2026-11-03 or 2026-11-03T09:30:00Z.") from None
