"""Monthly totals (UTC) and quotas of callers in the database, and charging them."""

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

# Every prediction executes these statements; built once, SQLAlchemy finds their compiled forms fast.
_USED = (
    select(usage.c.owner, usage.c.month, usage.c.requests, usage.c.pixels)
    # The owners alone: SQLite uses no index for several pairs.
    .where(usage.c.owner.in_(bindparam("owners", expanding=True)))
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
_UPDATE = (
    update(usage)
    .where(usage.c.owner == bindparam("of"), usage.c.month == bindparam("in"))
    .values(requests=bindparam("requests"), pixels=bindparam("pixels"))
)

_Row = tuple[str, str]  # owner and month
Limits = tuple[int | None, int | None]  # requests and pixels per month; None means unlimited
NO_LIMITS: Limits = (None, None)


@dataclass(frozen=True, slots=True)
class QuotaCharge:
    """The use to add to the month ("2026-11") of every owner, or to none if it would exceed a quota of one of them."""

    owners: tuple[str, ...]
    month: str
    requests: int
    pixels: int

    @property
    def rows(self) -> tuple[_Row, ...]:
        """The pairs of owner and month."""
        return tuple((owner, self.month) for owner in self.owners)


@dataclass(frozen=True, slots=True)
class Tally:
    """What one owner has used in a month, and the quotas."""

    requests: int
    pixels: int
    limits: Limits

    @property
    def remaining(self) -> Limits:
        """Requests and pixels until a quota is exhausted; 0 if a quota was lowered below what was used."""
        requests, pixels = self.limits
        return _subtract(requests, self.requests), _subtract(pixels, self.pixels)

    def plus(self, charge: QuotaCharge) -> Tally:
        return replace(self, requests=self.requests + charge.requests, pixels=self.pixels + charge.pixels)

    def exceeded(self) -> str | None:
        """Return the name of an exceeded quota, or None."""
        requests, pixels = self.limits
        if requests is not None and self.requests > requests:
            return "requests"
        return "megapixels" if pixels is not None and self.pixels > pixels else None


Tallies = dict[_Row, Tally]


def list_owners(principal: Principal) -> tuple[str, ...]:
    """Return whose use a caller's requests count as: the caller first, then the API key if there is one."""
    if principal.key_id is not None:
        return user_owner(principal.subject), key_owner(principal.key_id)
    if principal.subject == principal.client_id:
        return (f"{_CLIENT}{principal.subject}",)
    if "|" in principal.subject:
        return (f"{_ISSUER}{principal.subject}",)
    return (user_owner(principal.subject),)


def user_owner(user_id: str) -> str:
    return f"{_USER}{user_id}"


def key_owner(key_id: str) -> str:
    return f"{_KEY}{key_id}"


def format_month(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).isoformat()[:7]


def next_month(now: float) -> datetime:
    """Return when the month after that of `now` (seconds since 1970) begins."""
    first = datetime.fromtimestamp(now, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return (first + timedelta(days=32)).replace(day=1)


def read_tallies(connection: Connection, owners: Sequence[str], month: str) -> list[Tally]:
    """Return what each owner has used in the month."""
    rows = [(owner, month) for owner in owners]
    tallies = _make_tallies(connection, rows, _read_used(connection, rows, _USED))
    return [tallies[row] for row in rows]


def apply_charges(
    connection: Connection, charges: Sequence[QuotaCharge], *, enforce: bool = True
) -> tuple[list[QuotaExceeded | None], Tallies]:
    """Add the charges one after another, except those that would exceed a quota, unless `enforce` is false.

    Returns for each charge its error, or None if it was added; and the owners' new totals. All rows are locked first,
    in the same order in all processes, so that transactions cannot deadlock.
    """
    rows = sorted({row for charge in charges for row in charge.rows})
    used = _read_used(connection, rows, _USED_LOCKED)
    if len(used) < len(rows):
        blank = [{"owner": owner, "month": month, "requests": 0, "pixels": 0} for owner, month in rows]
        connection.execute(dialect_insert(usage, connection.dialect).on_conflict_do_nothing(), blank)
        used = _read_used(connection, rows, _USED_LOCKED)
    before = _make_tallies(connection, rows, used)
    after = dict(before)
    errors = [_add(after, charge, enforce) for charge in charges]
    changed = [
        {"of": row[0], "in": row[1], "requests": after[row].requests, "pixels": after[row].pixels}
        for row in rows
        if after[row] != before[row]
    ]
    if changed:
        connection.execute(_UPDATE, changed)
    return errors, after


def _add(totals: Tallies, charge: QuotaCharge, enforce: bool) -> QuotaExceeded | None:
    """Add the charge to the totals of all its owners, or return the error and change none."""
    error = find_exceeded(totals, charge) if enforce else None
    if error is None:
        totals.update({row: totals[row].plus(charge) for row in charge.rows})
    return error


def find_exceeded(totals: Mapping[_Row, Tally], charge: QuotaCharge) -> QuotaExceeded | None:
    """Return the error for the first owner whose quota the charge would exceed, or None."""
    for owner, month in charge.rows:
        quota = totals[owner, month].plus(charge).exceeded()
        if quota:
            return QuotaExceeded(quota, "API key" if owner.startswith(_KEY) else "account")
    return None


def _read_used(connection: Connection, rows: Sequence[_Row], statement: Select[Any]) -> dict[_Row, tuple[int, int]]:
    """Return requests and pixels of the existing rows."""
    found = connection.execute(statement, {"owners": [owner for owner, _ in rows], "rows": rows})
    return {(owner, month): (requests, pixels) for owner, month, requests, pixels in found}


def _make_tallies(connection: Connection, rows: Sequence[_Row], used: Mapping[_Row, tuple[int, int]]) -> Tallies:
    limits = _read_limits(connection, {owner for owner, _ in rows})
    return {row: Tally(*used.get(row, (0, 0)), limits.get(row[0], NO_LIMITS)) for row in rows}


def _read_limits(connection: Connection, owners: Iterable[str]) -> Mapping[str, Limits]:
    limits: dict[str, Limits] = {}
    for prefix, statement in _LIMITS.items():
        ids = [owner.removeprefix(prefix) for owner in owners if owner.startswith(prefix)]
        if ids:
            for owner_id, requests, megapixels in connection.execute(statement, {"ids": ids}):
                pixels = None if megapixels is None else megapixels * PIXELS_IN_MEGAPIXEL
                limits[f"{prefix}{owner_id}"] = requests, pixels
    return limits


def _subtract(limit: int | None, used: int) -> int | None:
    return None if limit is None else max(0, limit - used)
