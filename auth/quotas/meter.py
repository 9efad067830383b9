"""Counts what callers use, exactly and over all processes, and holds them to their monthly quotas.

A caller is judged twice: before the work, by what this process knows, and when the answer is written down, in the
transaction that counts it. The first spares the work; the second is exact.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncEngine

from auth.errors import QuotaExceeded
from auth.principal import Principal
from auth.quotas.tallies import (
    QuotaCharge,
    Tallies,
    Tally,
    charge,
    find_exceeded,
    format_month,
    list_owners,
    next_month,
    read_tallies,
)
from storage.errors import DatabaseUnavailable
from storage.transactions import reading

_MOST_KNOWN = 10_000  # owners and months


@dataclass(frozen=True, slots=True)
class UsageReport:
    """A month ("2026-11", UTC), when the next begins, and the tallies of those who were asked for, in their order."""

    month: str
    resets_at: datetime
    tallies: Sequence[Tally]


class UsageMeter:
    """`clock` tells seconds since 1970.

    While the database is away callers are held to what was known of them last, and counted once it is back.
    """

    def __init__(self, engine: AsyncEngine, clock: Callable[[], float] = time.time) -> None:
        self._engine = engine
        self._clock = clock
        self._known: Tallies = {}

    async def admit(self, principal: Principal, pixels: int) -> QuotaCharge:
        """What one request for an image of so many pixels will be charged. Raises QuotaExceeded.

        The database is asked about callers who are new to this process or seem to have used their quota up.
        """
        entry = QuotaCharge(list_owners(principal), format_month(self._clock()), 1, pixels)
        known = self._known_of(entry)
        if known is None or find_exceeded(known, entry):
            with suppress(DatabaseUnavailable):  # what is known must do
                known = dict(zip(entry.rows, await self._read(entry.owners, entry.month), strict=True))
                self._learn(known)
            if known and (refusal := find_exceeded(known, entry)):
                raise self._dated(refusal)
        return entry

    def charge(self, connection: Connection, entries: Sequence[QuotaCharge]) -> list[QuotaExceeded | None]:
        """Count the entries in the open transaction, but those that would exceed a quota; say for each why not."""
        answers, known = charge(connection, entries)
        self._learn(known)
        return [self._dated(refusal) if refusal else None for refusal in answers]

    def charge_deferred(self, connection: Connection, entries: Sequence[QuotaCharge]) -> None:
        """Count in the open transaction what was answered while the database was away."""
        self._learn(charge(connection, entries, enforce=False)[1])

    def charge_later(self, entry: QuotaCharge) -> None:
        """Remember an entry that cannot be counted in the database now."""
        known = self._known_of(entry)
        if known:
            self._learn({row: tally.plus(entry) for row, tally in known.items()})

    async def report(self, owners: Sequence[str]) -> UsageReport:
        """What each owner has used this month. Raises DatabaseUnavailable."""
        now = self._clock()
        return UsageReport(format_month(now), next_month(now), await self._read(owners, format_month(now)))

    async def _read(self, owners: Sequence[str], month: str) -> list[Tally]:
        async with reading(self._engine) as connection:
            return await connection.run_sync(read_tallies, owners, month)

    def _known_of(self, entry: QuotaCharge) -> Tallies | None:
        known = self._known  # another thread may put another one there
        return {row: known[row] for row in entry.rows} if all(row in known for row in entry.rows) else None

    def _learn(self, known: Tallies) -> None:
        if len(self._known) + len(known) > _MOST_KNOWN:
            self._known = {}
        self._known.update(known)

    def _dated(self, refusal: QuotaExceeded) -> QuotaExceeded:
        now = self._clock()
        refusal.retry_after_s = max(1, math.ceil(next_month(now).timestamp() - now))
        return refusal
