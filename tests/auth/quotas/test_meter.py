"""Quotas and the counting of use, on both databases."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import event, update
from sqlalchemy.ext.asyncio import AsyncEngine

from auth.accounts.store import UserStore
from auth.api_keys.store import KeyStore, KeyTerms
from auth.errors import QuotaExceeded
from auth.principal import Principal, Role, Scope
from auth.quotas.meter import UsageMeter
from auth.quotas.tallies import QuotaCharge, list_owners
from auth.tables import users
from storage.engine import open_engine
from storage.transactions import writing

MEGAPIXEL = 1_000_000
CHARGES = 150

# One of several processes: charges every key it is told of in turn, and prints how many charges were granted.
PROGRAM = """
import sys
from storage.engine import open_blocking_engine
from storage.transactions import WRITING
from auth.principal import Principal
from auth.quotas.tallies import QuotaCharge, apply_charges, format_month, list_owners
import time

url, user, charges, *keys = sys.argv[1:]
engine = open_blocking_engine(url, 60).execution_options(**WRITING)
callers = [Principal(user, "ana", None, frozenset(), None, key_id=key) for key in keys]
entries = [QuotaCharge(list_owners(caller), format_month(time.time()), 1, 250_000) for caller in callers]
print("ready", flush=True)
sys.stdin.readline()
granted = 0
for index in range(int(charges)):
    with engine.begin() as connection:
        answers, _ = apply_charges(connection, [entries[index % len(entries)]])
    granted += answers == [None]
print(granted)
engine.dispose()
"""


@dataclass
class Desk:
    """A meter over a database with the user `ana`, whose clock stands where the test puts it."""

    engine: AsyncEngine
    ana: Principal
    now: datetime = datetime(2026, 11, 15, 12, tzinfo=UTC)

    def __post_init__(self) -> None:
        self.meter = UsageMeter(self.engine, self.clock)

    def clock(self) -> float:
        return self.now.timestamp()

    async def charge(self, caller: Principal, pixels: int) -> None:
        """Admit a request and count it, as an answered one is."""
        (refusal,) = await self.charge_all([await self.meter.admit(caller, pixels)])
        if refusal:
            raise refusal

    async def charge_all(self, entries: list[QuotaCharge]) -> list[QuotaExceeded | None]:
        async with writing(self.engine) as connection:
            return await connection.run_sync(self.meter.charge, entries)

    async def limit(self, requests: int | None = None, megapixels: int | None = None) -> None:
        values = {"monthly_requests": requests, "monthly_megapixels": megapixels}
        async with writing(self.engine) as connection:
            await connection.execute(update(users).where(users.c.id == self.ana.subject).values(**values))

    async def key(self, requests: int | None = None, megapixels: int | None = None) -> Principal:
        """A caller with a key of ana's that has quotas of its own."""
        until = datetime.now(UTC) + timedelta(days=1)
        terms = KeyTerms("maps", frozenset({Scope.PREDICT}), until, (), None, requests, megapixels)
        key, _ = await KeyStore(self.engine).create(self.ana.subject, terms)
        return replace(self.ana, key_id=key.id)

    async def used(self, caller: Principal | None = None) -> list[tuple[int, int]]:
        """Requests and pixels of each owner."""
        report = await self.meter.report(list_owners(caller or self.ana))
        return [(tally.requests, tally.pixels) for tally in report.tallies]


@pytest.fixture
async def desk(engine: AsyncEngine) -> Desk:
    user = await UserStore(engine).add("ana", Role.CLIENT, "hash")
    return Desk(engine, Principal(user.id, user.name, user.role, frozenset(), None))


def entry(caller: Principal, pixels: int = 1) -> QuotaCharge:
    return QuotaCharge(list_owners(caller), "2026-11", 1, pixels)


async def test_use_is_counted_for_the_user_and_the_key(desk: Desk) -> None:
    """What a key does counts for its user, too; what the user does otherwise does not count for the key."""
    key = await desk.key()
    await desk.charge(desk.ana, 3)
    await desk.charge(key, 4)
    assert await desk.used(key) == [(2, 7), (1, 4)]


async def test_the_last_request_of_a_quota_is_granted(desk: Desk) -> None:
    """Of a crowd in one transaction exactly as many are granted as the quota has room for; no other is counted."""
    await desk.limit(requests=70)
    answers = await desk.charge_all([entry(desk.ana)] * 100)
    assert [answer is None for answer in answers] == [True] * 70 + [False] * 30
    assert await desk.used() == [(70, 70)]
    with pytest.raises(QuotaExceeded):
        await desk.meter.admit(desk.ana, 1)


async def test_the_last_pixel_of_a_quota_is_granted(desk: Desk) -> None:
    """An image that fits exactly is granted, one pixel more is refused, and a refused one takes nothing away."""
    await desk.limit(megapixels=2)
    await desk.charge(desk.ana, MEGAPIXEL)
    with pytest.raises(QuotaExceeded) as refusal:
        await desk.charge(desk.ana, MEGAPIXEL + 1)
    assert (refusal.value.quota, refusal.value.holder) == ("megapixels", "account")
    await desk.charge(desk.ana, MEGAPIXEL)
    assert await desk.used() == [(2, 2 * MEGAPIXEL)]


async def test_both_or_none_pay(desk: Desk) -> None:
    """Where the key's quota is used up the user is not charged, and the other way round; the refusal names whose."""
    key = await desk.key(requests=1)
    await desk.charge(key, 1)
    with pytest.raises(QuotaExceeded) as refusal:
        await desk.charge(key, 1)
    assert (refusal.value.quota, refusal.value.holder) == ("requests", "API key")
    wide = await desk.key(requests=10)
    await desk.limit(requests=1)
    with pytest.raises(QuotaExceeded) as refusal:
        await desk.charge(wide, 1)
    assert refusal.value.holder == "account"
    assert await desk.used(key) == [(1, 1), (1, 1)]
    assert await desk.used(wide) == [(1, 1), (0, 0)]


async def test_a_month_begins_anew(desk: Desk) -> None:
    """At midnight (UTC) the quota is whole again; the refusal says how many seconds that takes."""
    await desk.limit(requests=1)
    desk.now = datetime(2026, 12, 31, 23, 59, 30, tzinfo=UTC)
    await desk.charge(desk.ana, 1)
    with pytest.raises(QuotaExceeded) as refusal:
        await desk.charge(desk.ana, 1)
    assert refusal.value.retry_after_s == 30
    desk.now += timedelta(seconds=30)
    await desk.charge(desk.ana, 1)
    report = await desk.meter.report(list_owners(desk.ana))
    assert (report.month, report.resets_at) == ("2027-01", datetime(2027, 2, 1, tzinfo=UTC))
    assert report.tallies[0].requests == 1


async def test_a_changed_quota_counts_at_once(desk: Desk) -> None:
    """A quota below what is used already leaves nothing, not less than nothing; a wider one grants again."""
    await desk.charge_all([entry(desk.ana, MEGAPIXEL)] * 3)
    await desk.limit(requests=2, megapixels=1)
    (tally,) = (await desk.meter.report(list_owners(desk.ana))).tallies
    assert tally.remaining == (0, 0)
    assert (await desk.charge_all([entry(desk.ana)]))[0] is not None
    await desk.limit(requests=4)
    await desk.charge(desk.ana, 1)
    with pytest.raises(QuotaExceeded):
        await desk.charge(desk.ana, 1)


async def test_the_database_is_asked_about_strangers_alone(desk: Desk) -> None:
    """A caller who has room as far as this process knows is admitted without a query; a stranger is looked up."""
    queries: list[str] = []
    event.listen(desk.engine.sync_engine, "before_cursor_execute", lambda *given: queries.append(given[2]))
    await desk.meter.admit(desk.ana, 1)
    asked = len(queries)
    assert asked > 0
    await desk.meter.admit(desk.ana, 1)
    assert len(queries) == asked


async def test_what_was_answered_is_counted_past_the_quota(desk: Desk) -> None:
    """Charges that are owed since the database was away are counted in full, and nothing is granted beside them."""
    await desk.limit(requests=1)
    async with writing(desk.engine) as connection:
        await connection.run_sync(desk.meter.charge_deferred, [entry(desk.ana)] * 3)
    assert await desk.used() == [(3, 3)]
    with pytest.raises(QuotaExceeded):
        await desk.meter.admit(desk.ana, 1)


async def test_clients_and_outside_callers_are_counted_by_themselves(desk: Desk) -> None:
    """A service and a caller of another issuer have a count of their own, whatever their names look like."""
    service = Principal(desk.ana.subject, "job", None, frozenset(), None, client_id=desk.ana.subject)
    outside = Principal(f"https://issuer.example|{'ü' * 277}", "ada", None, frozenset(), None)
    assert len(outside.subject) == 300
    for caller in (service, outside):
        await desk.charge(caller, 7)
        assert await desk.used(caller) == [(1, 7)]
    assert await desk.used() == [(0, 0)]


async def test_without_a_database_the_last_word_counts(desk: Desk) -> None:
    """While the tallies cannot be read a known caller is held to what was known, and what is owed since is added."""
    await desk.limit(requests=2)
    await desk.charge(desk.ana, 1)
    meter = desk.meter
    meter._engine = away = open_engine("postgresql://127.0.0.1:1/nowhere")
    meter.charge_later(await meter.admit(desk.ana, 1))
    with pytest.raises(QuotaExceeded):
        await meter.admit(desk.ana, 1)
    await away.dispose()


async def test_without_a_database_strangers_are_admitted() -> None:
    """A caller of whom nothing is known while the database is away is let in, and counted later."""
    engine = open_engine("postgresql://127.0.0.1:1/nowhere")
    caller = Principal("ana", "ana", None, frozenset(), None)
    admitted = await UsageMeter(engine, lambda: datetime(2026, 11, 15, tzinfo=UTC).timestamp()).admit(caller, 5)
    assert admitted == entry(caller, 5)
    await engine.dispose()


async def test_four_processes_count_exactly(desk: Desk, database_url: str) -> None:
    """Four processes that charge the same keys at once, in different orders, lose and invent nothing."""
    one, two = await desk.key(), await desk.key()
    desk.now = datetime.now(UTC)
    granted = await asyncio.to_thread(run_four, database_url, [one, two])
    assert granted == [CHARGES] * 4
    total = 4 * CHARGES
    assert await desk.used(one) == [(total, total * 250_000), (total // 2, total // 2 * 250_000)]
    assert (await desk.used(two))[1] == (total // 2, total // 2 * 250_000)


async def test_four_processes_stop_exactly_at_the_quota(desk: Desk, database_url: str) -> None:
    """Of the charges of four processes exactly as many are granted as the account and the key have room for."""
    narrow, wide = await desk.key(requests=90), await desk.key()
    await desk.limit(megapixels=60)
    desk.now = datetime.now(UTC)
    granted = await asyncio.to_thread(run_four, database_url, [narrow, wide])
    assert sum(granted) == 240  # 60 megapixels, of a quarter each
    account, of_narrow = await desk.used(narrow)
    assert account == (240, 60 * MEGAPIXEL)
    assert of_narrow[0] <= 90
    assert of_narrow[0] + (await desk.used(wide))[1][0] == 240


def run_four(url: str, callers: list[Principal]) -> list[int]:
    """How many charges four processes were granted that begin together."""
    running = []
    for index in range(4):
        keys = [str(caller.key_id) for caller in (callers if index % 2 else callers[::-1])]
        command = [sys.executable, "-c", PROGRAM, url, callers[0].subject, str(CHARGES), *keys]
        running.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
    for process in running:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    return [int(process.communicate("go\n", timeout=60)[0]) for process in running]
