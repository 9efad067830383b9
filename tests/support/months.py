"""Monthly quotas are reset at the end of each UTC month, which must not happen while a test counts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tests.support.polling import wait_until

_MAX_TEST = timedelta(minutes=5)


def wait_out_the_end_of_the_month() -> None:
    """Return immediately, except in the last five minutes of a UTC month: then wait for the next month."""
    wait_until(lambda: _month(datetime.now(UTC)) == _month(datetime.now(UTC) + _MAX_TEST), within_s=400)


def _month(moment: datetime) -> tuple[int, int]:
    return moment.year, moment.month
