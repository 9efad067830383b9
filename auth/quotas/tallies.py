"""What is counted for whom in which month (UTC), and the quotas on it, as rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Select, bindparam, select, tuple_, update

from auth.errors import QuotaExceeded
from auth.principal import Principal
from auth.tables import api_keys, usage, users
from storage.engine import dialect_insert

PIXELS_IN_MEGAPIXEL = 1_000_000

_USER, _KEY, _CLIENT, _ISSUER = "user:", "key:", "client:", "issuer:"

# Every prediction executes them: made once, their compiled forms are found at once.
_USED = (
    select(usage.c.owner, usage.c.month, usage.c.requests, usage.c.pixels)
    .where(tuple_(usage.c.owner, usage.c.month).in_(bindparam("rows", expanding=True)))
    .order_by(usage.c.owner, usage.c.month)
)
_USED_LOCKED = _USED.with_for_update()
_LIMITS = {
    prefix: select(table.c.id, table.c.monthly_requests, table.c.monthly_megapixels).where(
        table.c.id.in_(bindparam("ids", expanding=True))
    )
    for prefix, table in ((_USER, users), (_KEY, api_keys))
}
_CHANGE = (
    update(usage)
    .where(usage.c.owner == bindparam("of"), usage.c.month == bindparam("in"))
    .values(requests=bindparam("requests"), pixels=bindparam("pixels"))
)

_Row = tuple[str, str]  # owner and month
Limits = tuple[int | None, int | None]  # requests and pixels in a month; None: as many as one likes
NO_LIMITS: Limits = (None, None)


@dataclass(frozen=True, slots=True)
class QuotaCharge:
    """What is to be added to the month ("2026-11") of every owner, or of none of them."""

    owners: tuple[str, ...]
    month: str
    requests: int
    pixels: int

    @property
    def rows(self) -> tuple[_Row, ...]:
        """Each owner with the month."""
        return tuple((owner, self.month) for owner in self.owners)


@dataclass(frozen=True, slots=True)
class Tally:
    """What one owner has used in a month, and the limits."""

    requests: int
    pixels: int
    limits: Limits

    @property
    def remaining(self) -> Limits:
        """Requests and pixels until a quota is used up; 0 where a quota was lowered below what is used."""
        requests, pixels = self.limits
        return _left(requests, self.requests), _left(pixels, self.pixels)

    def plus(self, entry: QuotaCharge) -> Tally:
        return replace(self, requests=self.requests + entry.requests, pixels=self.pixels + entry.pixels)

    def exceeded(self) -> str | None:
        """Name the quota that is exceeded."""
        requests, pixels = self.limits
        if requests is not None and self.requests > requests:
            return "requests"
        return "megapixels" if pixels is not None and self.pixels > pixels else None


Tallies = dict[_Row, Tally]


def list_owners(principal: Principal) -> tuple[str, ...]:
    """Whom a caller's use is counted for: always the caller first, then the API key."""
    if principal.key_id is not None:
        return user_owner(principal.subject), f"{_KEY}{principal.key_id}"
    if principal.subject == principal.client_id:
        return (f"{_CLIENT}{principal.subject}",)
    if "|" in principal.subject:
        return (f"{_ISSUER}{principal.subject}",)
    return (user_owner(principal.subject),)


def user_owner(user_id: str) -> str:
    return f"{_USER}{user_id}"


def format_month(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).isoformat()[:7]


def next_month(now: float) -> datetime:
    """When the month after that of `now` (seconds since 1970) begins."""
    first = datetime.fromtimestamp(now, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return (first + timedelta(days=32)).replace(day=1)


def read_tallies(connection: Connection, owners: Sequence[str], month: str) -> list[Tally]:
    """What each owner has used in the month."""
    rows = [(owner, month) for owner in owners]
    found = _tallies(connection, rows, _used(connection, rows, _USED))
    return [found[row] for row in rows]


def charge(
    connection: Connection, entries: Sequence[QuotaCharge], *, enforce: bool = True
) -> tuple[list[QuotaExceeded | None], Tallies]:
    """Add the entries one after the other, but those that would exceed a quota; say for each why not.

    Also returns what the owners have used now. Without `enforce` all are added: they are owed already. All the rows
    are locked first, in one order for all processes: two never wait for each other in a circle.
    """
    rows = sorted({(owner, entry.month) for entry in entries for owner in entry.owners})
    used = _used(connection, rows, _USED_LOCKED)
    if len(used) < len(rows):
        blank = [{"owner": owner, "month": month, "requests": 0, "pixels": 0} for owner, month in rows]
        connection.execute(dialect_insert(usage, connection.dialect).on_conflict_do_nothing(), blank)
        used = _used(connection, rows, _USED_LOCKED)
    before = _tallies(connection, rows, used)
    after = dict(before)
    answers = [_add(after, entry, enforce) for entry in entries]
    changed = [
        {"of": row[0], "in": row[1], "requests": after[row].requests, "pixels": after[row].pixels}
        for row in rows
        if after[row] != before[row]
    ]
    if changed:
        connection.execute(_CHANGE, changed)
    return answers, after


def _add(totals: Tallies, entry: QuotaCharge, enforce: bool) -> QuotaExceeded | None:
    """Change the totals of all the entry's owners, or return why of none."""
    refusal = find_exceeded(totals, entry) if enforce else None
    if refusal is None:
        totals.update({row: totals[row].plus(entry) for row in entry.rows})
    return refusal


def find_exceeded(totals: Mapping[_Row, Tally], entry: QuotaCharge) -> QuotaExceeded | None:
    """The error of the first of the entry's owners whose quota it would exceed."""
    for owner, month in entry.rows:
        quota = totals[owner, month].plus(entry).exceeded()
        if quota:
            return QuotaExceeded(quota, "API key" if owner.startswith(_KEY) else "account")
    return None


def _used(connection: Connection, rows: Sequence[_Row], statement: Select[Any]) -> dict[_Row, tuple[int, int]]:
    """Requests and pixels of the rows that there are."""
    found = connection.execute(statement, {"rows": rows})
    return {(owner, month): (requests, pixels) for owner, month, requests, pixels in found}


def _tallies(connection: Connection, rows: Sequence[_Row], used: Mapping[_Row, tuple[int, int]]) -> Tallies:
    limits = _limits(connection, {owner for owner, _ in rows})
    return {row: Tally(*used.get(row, (0, 0)), limits.get(row[0], NO_LIMITS)) for row in rows}


def _limits(connection: Connection, owners: Iterable[str]) -> Mapping[str, Limits]:
    found: dict[str, Limits] = {}
    for prefix, statement in _LIMITS.items():
        ids = [owner.removeprefix(prefix) for owner in owners if owner.startswith(prefix)]
        if ids:
            for owner_id, requests, megapixels in connection.execute(statement, {"ids": ids}):
                pixels = None if megapixels is None else megapixels * PIXELS_IN_MEGAPIXEL
                found[f"{prefix}{owner_id}"] = requests, pixels
    return found


def _left(limit: int | None, used: int) -> int | None:
    return None if limit is None else max(0, limit - used)
