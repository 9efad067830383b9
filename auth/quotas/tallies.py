"""Reads the monthly totals (UTC) and quotas of callers from the database, and charges them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec import Struct
from sqlalchemy import (
    ColumnElement,
    Connection,
    Dialect,
    Table,
    bindparam,
    exists,
    func,
    literal,
    null,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.sql.expression import ClauseElement

from auth.errors import QuotaExceeded
from auth.principal import Principal
from auth.tables import api_keys, usage, users
from storage.driver import DriverConnection, DriverResult, DriverStatement
from storage.engine import dialect_insert

PIXELS_IN_MEGAPIXEL = 1_000_000

_USER, _KEY, _CLIENT, _ISSUER = "user:", "key:", "client:", "issuer:"

_USED = (
    select(usage.c.owner, usage.c.month, usage.c.requests, usage.c.pixels)
    # The condition on the owner alone lets SQLite use an index, which it does not use to find several pairs.
    .where(usage.c.owner.in_(bindparam("owners", expanding=True)))
    .where(tuple_(usage.c.owner, usage.c.month).in_(bindparam("rows", expanding=True)))
)
_LIMITS = {
    prefix: select(table.c.id, table.c.monthly_requests, table.c.monthly_megapixels).where(
        table.c.id.in_(bindparam("ids", expanding=True))
    )
    for prefix, table in ((_USER, users), (_KEY, api_keys))
}
# NULL if no owner has such a quota. Quotas of 0 are ignored: they have no share.
_HIGHEST_SHARES = [
    select(
        func.max(usage.c.requests * 1.0 / func.nullif(table.c.monthly_requests, 0)),
        func.max(usage.c.pixels * 1.0 / PIXELS_IN_MEGAPIXEL / func.nullif(table.c.monthly_megapixels, 0)),
    )
    .join_from(table, usage, usage.c.owner == literal(prefix) + table.c.id)
    .where(usage.c.month == bindparam("month"))
    .where(or_(table.c.monthly_requests.is_not(None), table.c.monthly_megapixels.is_not(None)))  # uses an index
    for prefix, table in ((_USER, users), (_KEY, api_keys))
]
_THIS_ROW = usage.c.owner == bindparam("of"), usage.c.month == bindparam("in")


def _build_addition(limited: Table | None) -> DriverStatement:
    """Build an upsert that adds to a usage row and returns the new totals and the quotas of the row's owner."""
    limits: Sequence[Any] = (null(), null())
    if limited is not None:
        columns = limited.c.monthly_requests, limited.c.monthly_megapixels
        limits = [select(column).where(limited.c.id == bindparam("id")).scalar_subquery() for column in columns]

    def build(dialect: Dialect) -> ClauseElement:
        more: dict[str, Any] = {"requests": bindparam("more_requests"), "pixels": bindparam("more_pixels")}
        row = dialect_insert(usage, dialect).values(owner=bindparam("of"), month=bindparam("in"), **more)
        totals = {name: usage.c[name] + row.excluded[name] for name in more}
        added = row.on_conflict_do_update(index_elements=usage.primary_key, set_=totals)
        statement: ClauseElement = added.returning(usage.c.requests, usage.c.pixels, *limits)
        return statement

    return DriverStatement(build)


# The statements that charge predictions.
ADD_BY_PREFIX = {_USER: _build_addition(users), _KEY: _build_addition(api_keys)}
ADD_WITHOUT_LIMITS = _build_addition(None)
SET_TOTALS = DriverStatement(
    update(usage).where(*_THIS_ROW).values(requests=bindparam("requests"), pixels=bindparam("pixels"))
)

_Row = tuple[str, str]  # owner and month
_Sum = tuple[int, int]  # requests and pixels
Limits = tuple[int | None, int | None]  # requests and pixels per month; None means unlimited
NO_LIMITS: Limits = (None, None)


class QuotaCharge(Struct, frozen=True):
    """Usage to add to the month ("2026-11") of every owner, or of none if it would exceed a quota of one of them."""

    owners: tuple[str, ...]
    month: str
    requests: int
    pixels: int

    @property
    def rows(self) -> tuple[_Row, ...]:
        """The pairs of owner and month."""
        return tuple((owner, self.month) for owner in self.owners)


class Tally(Struct, frozen=True):
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
        return Tally(self.requests + charge.requests, self.pixels + charge.pixels, self.limits)

    def exceeded(self) -> str | None:
        """Return the name of an exceeded quota, or None."""
        requests, pixels = self.limits
        if requests is not None and self.requests > requests:
            return "requests"
        return "megapixels" if pixels is not None and self.pixels > pixels else None


Tallies = dict[_Row, Tally]


def list_owners(principal: Principal) -> tuple[str, ...]:
    """Return the owners that a caller's requests are charged to: the caller first, then the API key if there is one."""
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


def select_deleted_keys() -> ColumnElement[bool]:
    """Return the condition for the usage of API keys that do not exist. Keys are deleted only with their user."""
    same_key = api_keys.c.id == func.substr(usage.c.owner, len(_KEY) + 1)
    return usage.c.owner.startswith(_KEY) & ~exists().where(same_key)


def format_month(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).isoformat()[:7]


def next_month(now: float) -> datetime:
    """Return when the month after that of `now` (seconds since 1970) begins."""
    first = datetime.fromtimestamp(now, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return (first + timedelta(days=32)).replace(day=1)


def read_tallies(connection: Connection, owners: Sequence[str], month: str) -> list[Tally]:
    """Return what each owner has used in the month."""
    rows = [(owner, month) for owner in owners]
    result = connection.execute(_USED, {"owners": owners, "rows": rows})
    used = {owner: (requests, pixels) for owner, _, requests, pixels in result}
    limits = _read_limits(connection, set(owners))
    return [Tally(*used.get(owner, (0, 0)), limits.get(owner, NO_LIMITS)) for owner in owners]


def find_highest_share(connection: Connection, month: str) -> float:
    """Return the largest share of a quota that its owner has used in the month; 0 without quotas.

    It is above 1 if a quota was lowered below what was used.
    """
    rows = [connection.execute(statement, {"month": month}).one() for statement in _HIGHEST_SHARES]
    return max((float(share) for row in rows for share in row if share is not None), default=0.0)


def apply_charges(
    connection: DriverConnection, charges: Sequence[QuotaCharge], *, enforce: bool = True
) -> tuple[list[QuotaExceeded | None], Tallies]:
    """Add the charges one after another, except those that would exceed a quota, unless `enforce` is false.

    Returns for each charge its error, or None if it was added; and the owners' new totals. Everything is added before
    the quotas are checked, since most charges are allowed; rejected charges are subtracted again. All processes lock
    the rows in the same order, so that transactions cannot deadlock.
    """
    sums = _sum_by_row(charges)
    results = {row: _add_to_row(connection, row, sums[row]) for row in sorted(sums)}
    totals = {row: _read_tally(result) for row, result in results.items()}
    if enforce and any(tally.exceeded() for tally in totals.values()):
        return _reject_excess(connection, charges, totals, sums)
    return [None] * len(charges), totals


def _reject_excess(
    connection: DriverConnection, charges: Sequence[QuotaCharge], reached: Tallies, sums: Mapping[_Row, _Sum]
) -> tuple[list[QuotaExceeded | None], Tallies]:
    """Reject the charges that exceed a quota, and correct the totals; see `apply_charges`."""
    totals = {row: Tally(t.requests - sums[row][0], t.pixels - sums[row][1], t.limits) for row, t in reached.items()}
    errors = [_add(totals, charge) for charge in charges]
    for (owner, month), tally in totals.items():
        kept = {"requests": tally.requests, "pixels": tally.pixels}
        connection.execute(SET_TOTALS, {"of": owner, "in": month, **kept})
    return errors, totals


def _sum_by_row(charges: Sequence[QuotaCharge]) -> dict[_Row, _Sum]:
    sums: dict[_Row, _Sum] = {}
    for charge in charges:
        for row in charge.rows:
            requests, pixels = sums.get(row, (0, 0))
            sums[row] = requests + charge.requests, pixels + charge.pixels
    return sums


def _add_to_row(connection: DriverConnection, row: _Row, more: _Sum) -> DriverResult:
    owner, month = row
    prefix, _, identifier = owner.partition(":")
    statement = ADD_BY_PREFIX.get(f"{prefix}:", ADD_WITHOUT_LIMITS)
    parameters = {"of": owner, "in": month, "more_requests": more[0], "more_pixels": more[1]}
    return connection.execute(statement, {**parameters, "id": identifier})


def _read_tally(result: DriverResult) -> Tally:
    """Return the totals of a row after an addition."""
    ((requests, pixels, monthly_requests, megapixels),) = result.fetch()
    return Tally(requests, pixels, _make_limits(monthly_requests, megapixels))


def _add(totals: Tallies, charge: QuotaCharge) -> QuotaExceeded | None:
    """Add the charge to the totals of all its owners, or return the error and change none."""
    error = find_exceeded(totals, charge)
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


def _read_limits(connection: Connection, owners: Iterable[str]) -> Mapping[str, Limits]:
    limits: dict[str, Limits] = {}
    for prefix, statement in _LIMITS.items():
        ids = [owner.removeprefix(prefix) for owner in owners if owner.startswith(prefix)]
        if ids:
            for owner_id, requests, megapixels in connection.execute(statement, {"ids": ids}):
                limits[f"{prefix}{owner_id}"] = _make_limits(requests, megapixels)
    return limits


def _make_limits(requests: int | None, megapixels: int | None) -> Limits:
    return requests, None if megapixels is None else megapixels * PIXELS_IN_MEGAPIXEL


def _subtract(limit: int | None, used: int) -> int | None:
    return None if limit is None else max(0, limit - used)
