"""A usage meter with a user and a clock, which tests of quotas share."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from msgspec.structs import replace
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncEngine

from auth.api_keys.store import KeyStore, KeyTerms
from auth.errors import QuotaExceeded
from auth.principal import Principal, Scope
from auth.quotas.meter import UsageMeter
from auth.quotas.tallies import QuotaCharge, list_owners
from auth.tables import users
from storage.driver import DriverConnection
from storage.transactions import writing

MEGAPIXEL = 1_000_000


@dataclass
class MeterSetup:
    """A database with the user `ana`, and a meter with a clock that the test sets."""

    engine: AsyncEngine
    ana: Principal
    now: datetime = datetime(2026, 11, 15, 12, tzinfo=UTC)

    def __post_init__(self) -> None:
        self.meter = UsageMeter(self.engine, self.clock)

    def clock(self) -> float:
        return self.now.timestamp()

    async def charge(self, caller: Principal, pixels: int) -> None:
        """Admit a request and charge it, as for a successful prediction."""
        (error,) = await self.charge_all([await self.meter.admit(caller, pixels)])
        if error:
            raise error

    async def charge_all(self, charges: list[QuotaCharge]) -> list[QuotaExceeded | None]:
        async with writing(self.engine) as connection:
            errors = await connection.run_sync(lambda blocking: self.meter.charge(DriverConnection(blocking), charges))
        self.meter.confirm()
        return errors

    async def charge_deferred(self, charges: list[QuotaCharge]) -> None:
        async with writing(self.engine) as connection:
            await connection.run_sync(lambda blocking: self.meter.charge_deferred(DriverConnection(blocking), charges))
        self.meter.confirm()

    async def limit(self, requests: int | None = None, megapixels: int | None = None) -> None:
        values = {"monthly_requests": requests, "monthly_megapixels": megapixels}
        async with writing(self.engine) as connection:
            await connection.execute(update(users).where(users.c.id == self.ana.subject).values(**values))

    async def key(self, requests: int | None = None, megapixels: int | None = None) -> Principal:
        """Return a caller with one of ana's keys, which has its own quotas."""
        expires_at = datetime.now(UTC) + timedelta(days=1)
        terms = KeyTerms("maps", frozenset({Scope.PREDICT}), expires_at, (), None, requests, megapixels)
        key, _ = await KeyStore(self.engine).create(self.ana.subject, terms)
        return replace(self.ana, key_id=key.id)

    async def used(self, caller: Principal | None = None) -> list[tuple[int, int]]:
        """Return how many requests and pixels each owner has used."""
        report = await self.meter.report(list_owners(caller or self.ana))
        return [(tally.requests, tally.pixels) for tally in report.tallies]
