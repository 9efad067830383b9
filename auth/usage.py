"""Counts what callers use, exactly and over all processes, and holds them to their monthly quotas.

While one transaction runs, the charges that arrive wait for the next and share it: a crowd costs a commit every few
milliseconds, not one a request, and a lone caller waits for nobody.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from auth.database import reading, writing
from auth.errors import DatabaseUnavailable, QuotaExceeded
from auth.principal import Principal
from auth.quotas import Entry, Tally, month_of, next_month, owners_of, settle, tallies

_MOST_AT_ONCE = 500

log = structlog.get_logger("atalaya.usage")


@dataclass(frozen=True, slots=True)
class Report:
    """A month ("2026-11", UTC), when the next begins, and the tallies of those who were asked for, in their order."""

    month: str
    resets_at: datetime
    tallies: Sequence[Tally]


class UsageMeter:
    """`clock` tells seconds since 1970. While the database is away nothing is granted: quotas fail closed."""

    def __init__(self, engine: AsyncEngine, clock: Callable[[], float] = time.time) -> None:
        self._engine = engine
        self._clock = clock
        self._waiting: list[tuple[Entry, asyncio.Future[None]]] = []
        self._refunds: list[Entry] = []
        self._writer: asyncio.Task[None] | None = None

    async def charge(self, principal: Principal, pixels: int) -> Entry:
        """Count one request for an image of so many pixels; return what `refund` takes.

        Who is cancelled has not paid. Raises QuotaExceeded, DatabaseUnavailable.
        """
        entry = Entry(owners_of(principal), month_of(self._clock()), 1, pixels)
        paid: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((entry, paid))
        self._wake()
        try:
            await paid
        except QuotaExceeded as error:
            now = self._clock()
            error.retry_after_s = max(1, math.ceil(next_month(now).timestamp() - now))
            raise
        except asyncio.CancelledError:
            if not paid.cancelled() and paid.exception() is None:
                self.refund(entry)
            raise
        return entry

    def refund(self, entry: Entry) -> None:
        """Take a charge back with the next transaction; one that the database refuses is tried again."""
        self._refunds.append(entry.reversed())
        self._wake()

    async def report(self, owners: Sequence[str]) -> Report:
        """What each owner has used this month. Raises DatabaseUnavailable."""
        now = self._clock()
        async with reading(self._engine) as connection:
            found = await tallies(connection, owners, month_of(now))
        return Report(month_of(now), next_month(now), found)

    async def close(self) -> None:
        """Write what can be written now."""
        self._wake()
        if self._writer is not None:
            await self._writer
        if self._refunds:
            log.error("refunds_lost", requests=len(self._refunds))

    def _wake(self) -> None:
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())

    async def _write(self) -> None:
        """Settle until nothing is left; while the database is away, refunds stay for the next time."""
        failed = False
        while self._waiting or (self._refunds and not failed):
            batch, self._waiting = self._waiting[:_MOST_AT_ONCE], self._waiting[_MOST_AT_ONCE:]
            refunds, self._refunds = self._refunds[:_MOST_AT_ONCE], self._refunds[_MOST_AT_ONCE:]
            # Who has left already is not charged.
            batch = [(entry, paid) for entry, paid in batch if not paid.done()]
            try:
                answers = await self._settle(refunds, [entry for entry, _ in batch])
            except Exception as error:  # whatever it is, nobody may wait for ever
                failed = True
                self._refunds += refunds
                if not isinstance(error, DatabaseUnavailable):
                    log.exception("usage_not_written")
                answers = [error] * len(batch)
            for (entry, paid), answer in zip(batch, answers, strict=True):
                self._tell(entry, paid, answer)

    async def _settle(self, refunds: Sequence[Entry], charges: Sequence[Entry]) -> Sequence[Exception | None]:
        if not refunds and not charges:
            return []
        async with writing(self._engine) as connection:
            answers = await settle(connection, [*refunds, *charges])
        return answers[len(refunds) :]

    def _tell(self, entry: Entry, paid: asyncio.Future[None], answer: Exception | None) -> None:
        if answer is None and paid.cancelled():
            self._refunds.append(entry.reversed())
        elif not paid.done():
            paid.set_result(None) if answer is None else paid.set_exception(answer)
