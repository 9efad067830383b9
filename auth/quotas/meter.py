"""Counts what callers use, exactly across all processes, and enforces their monthly quotas.

Each request is checked twice: before the work, against the totals that this process has cached, and when its result is
recorded, in the transaction that counts it. The first check saves the work; the second is exact.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime

from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncEngine

from auth.errors import QuotaExceeded
from auth.principal import Principal
from auth.quotas.tallies import (
    QuotaCharge,
    Tallies,
    Tally,
    apply_charges,
    find_exceeded,
    find_highest_share,
    format_month,
    list_owners,
    next_month,
    read_tallies,
)
from storage.driver import DriverConnection
from storage.errors import DatabaseUnavailable
from storage.transactions import reading

_MAX_CACHED = 10_000  # pairs of owner and month


class UsageReport(Struct, frozen=True):
    """The tallies of the requested owners, in order, for a month ("2026-11", UTC), which ends at `resets_at`."""

    month: str
    resets_at: datetime
    tallies: Sequence[Tally]


class UsageMeter:
    """Charges callers and enforces their quotas; `clock` returns seconds since 1970.

    While the database is unavailable, callers are checked against the last known totals, and charged later.
    """

    def __init__(self, engine: AsyncEngine, clock: Callable[[], float] = time.time) -> None:
        self._engine = engine
        self._clock = clock
        self._cached: Tallies = {}
        self._uncommitted: Tallies = {}

    async def admit(self, principal: Principal, pixels: int) -> QuotaCharge:
        """Return the charge for one request with an image of `pixels` pixels. Raises QuotaExceeded.

        The database is read for callers who are new to this process or seem to have exhausted a quota.
        """
        charge = QuotaCharge(list_owners(principal), format_month(self._clock()), 1, pixels)
        known = self._find_cached(charge)
        if known is None or find_exceeded(known, charge):
            with suppress(DatabaseUnavailable):  # then the cached totals decide
                known = dict(zip(charge.rows, await self._read(charge.owners, charge.month), strict=True))
                self._cache(known)
            if known and (error := find_exceeded(known, charge)):
                raise self._with_retry_after(error)
        return charge

    def charge(self, connection: DriverConnection, charges: Sequence[QuotaCharge]) -> list[QuotaExceeded | None]:
        """Count the charges in the open transaction, except those that would exceed a quota.

        Returns for each charge its error, or None if it was counted. Call `confirm` once the transaction is committed.
        """
        errors, self._uncommitted = apply_charges(connection, charges)
        return [self._with_retry_after(error) if error else None for error in errors]

    def charge_deferred(self, connection: DriverConnection, charges: Sequence[QuotaCharge]) -> None:
        """Count in the open transaction, without checking quotas, what was used while the database was unavailable.

        Call `confirm` once the transaction is committed.
        """
        _, self._uncommitted = apply_charges(connection, charges, enforce=False)

    def confirm(self) -> None:
        """Cache the totals of the last charges. Before, they could be rolled back, and then be charged later."""
        self._cache(self._uncommitted)
        self._uncommitted = {}

    def charge_later(self, charge: QuotaCharge) -> None:
        """Add to the cached totals a charge that cannot be written to the database now."""
        known = self._find_cached(charge)
        if known:
            self._cache({row: tally.plus(charge) for row, tally in known.items()})

    async def report(self, owners: Sequence[str]) -> UsageReport:
        """Return what each owner has used this month. Raises DatabaseUnavailable."""
        now = self._clock()
        return UsageReport(format_month(now), next_month(now), await self._read(owners, format_month(now)))

    async def find_highest_share(self) -> float:
        """Return the largest share of a quota that its owner has used this month. Raises DatabaseUnavailable."""
        async with reading(self._engine) as connection:
            return await connection.run_sync(find_highest_share, format_month(self._clock()))

    async def _read(self, owners: Sequence[str], month: str) -> list[Tally]:
        async with reading(self._engine) as connection:
            return await connection.run_sync(read_tallies, owners, month)

    def _find_cached(self, charge: QuotaCharge) -> Tallies | None:
        cached = self._cached  # another thread may replace it meanwhile
        return {row: cached[row] for row in charge.rows} if all(row in cached for row in charge.rows) else None

    def _cache(self, totals: Tallies) -> None:
        if len(self._cached) + len(totals) > _MAX_CACHED:
            self._cached = {}
        self._cached.update(totals)

    def _with_retry_after(self, error: QuotaExceeded) -> QuotaExceeded:
        now = self._clock()
        error.retry_after_s = max(1, math.ceil(next_month(now).timestamp() - now))
        return error
