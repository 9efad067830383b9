"""Quotas and the counting of use, on both databases."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import event, text, update
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncEngine

from auth.database import open_engine, writing
from auth.errors import DatabaseUnavailable, QuotaExceeded
from auth.keys import KeyStore, KeyTerms
from auth.principal import Principal, Role, Scope
from auth.quotas import owners_of
from auth.tables import users
from auth.usage import UsageMeter
from auth.users import UserStore

MEGAPIXEL = 1_000_000
CHARGES = 150

# One of several processes: charges every key it is told of in turn, and prints how many charges were granted.
PROGRAM = """
import asyncio, sys
from auth.database import open_engine
from auth.errors import QuotaExceeded
from auth.principal import Principal
from auth.usage import UsageMeter

async def main():
    url, user, charges, *keys = sys.argv[1:]
    engine = open_engine(url)
    meter = UsageMeter(engine)
    callers = [Principal(user, "ana", None, frozenset(), None, key_id=key) for key in keys]
    await meter.report(["user:" + user])
    print("ready", flush=True)
    sys.stdin.readline()
    async def charge(index):
        try:
            await meter.charge(callers[index % len(callers)], 250_000)
        except QuotaExceeded:
            return 0
        return 1
    print(sum(await asyncio.gather(*map(charge, range(int(charges))))))
    await meter.close()
    await engine.dispose()

asyncio.run(main())
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
        """Requests and pixels of each owner, once every refund is written."""
        await self.meter.close()
        report = await self.meter.report(owners_of(caller or self.ana))
        return [(tally.requests, tally.pixels) for tally in report.tallies]

    async def granted(self, caller: Principal, count: int, pixels: int = 1) -> int:
        """How many of so many charges at once are granted."""
        answers = await asyncio.gather(
            *(self.meter.charge(caller, pixels) for _ in range(count)), return_exceptions=True
        )
        assert {type(answer).__name__ for answer in answers} <= {"Entry", "QuotaExceeded"}
        return sum(not isinstance(answer, QuotaExceeded) for answer in answers)


@pytest.fixture
async def desk(engine: AsyncEngine) -> AsyncIterator[Desk]:
    user = await UserStore(engine).add("ana", Role.CLIENT, "hash")
    desk = Desk(engine, Principal(user.id, user.name, user.role, frozenset(), None))
    yield desk
    await desk.meter.close()


async def test_use_is_counted_for_the_user_and_the_key(desk: Desk) -> None:
    """What a key does counts for its user, too; what the user does otherwise does not count for the key."""
    key = await desk.key()
    await desk.meter.charge(desk.ana, 3)
    await desk.meter.charge(key, 4)
    assert await desk.used(key) == [(2, 7), (1, 4)]


async def test_the_last_request_of_a_quota_is_granted(desk: Desk) -> None:
    """Of a crowd exactly as many are granted as the quota has room for, and what was refused is not counted."""
    await desk.limit(requests=70)
    assert await desk.granted(desk.ana, 100) == 70
    assert await desk.used() == [(70, 70)]
    await desk.limit(requests=0)
    assert await desk.granted(desk.ana, 1) == 0


async def test_the_last_pixel_of_a_quota_is_granted(desk: Desk) -> None:
    """An image that fits exactly is granted, one pixel more is refused, and a refused one takes nothing away."""
    await desk.limit(megapixels=2)
    await desk.meter.charge(desk.ana, MEGAPIXEL)
    with pytest.raises(QuotaExceeded) as refusal:
        await desk.meter.charge(desk.ana, MEGAPIXEL + 1)
    assert (refusal.value.quota, refusal.value.holder) == ("megapixels", "account")
    await desk.meter.charge(desk.ana, MEGAPIXEL)
    assert await desk.used() == [(2, 2 * MEGAPIXEL)]


async def test_both_or_none_pay(desk: Desk) -> None:
    """Where the key's quota is used up the user is not charged, and the other way round; the refusal names whose."""
    key = await desk.key(requests=1)
    await desk.meter.charge(key, 1)
    with pytest.raises(QuotaExceeded) as refusal:
        await desk.meter.charge(key, 1)
    assert (refusal.value.quota, refusal.value.holder) == ("requests", "API key")
    wide = await desk.key(requests=10)
    await desk.limit(requests=1)
    with pytest.raises(QuotaExceeded) as refusal:
        await desk.meter.charge(wide, 1)
    assert refusal.value.holder == "account"
    assert await desk.used(key) == [(1, 1), (1, 1)]
    assert await desk.used(wide) == [(1, 1), (0, 0)]


async def test_charges_that_arrive_together_share_a_commit(desk: Desk) -> None:
    """Two hundred charges at once take two transactions at most."""
    commits: list[object] = []
    event.listen(desk.engine.sync_engine, "commit", commits.append)
    assert await desk.granted(desk.ana, 200) == 200
    assert len(commits) <= 2


async def test_a_refund_makes_room(desk: Desk) -> None:
    """What was paid back can be spent again, by the user and by the key."""
    await desk.limit(requests=1)
    key = await desk.key(requests=1)
    entry = await desk.meter.charge(key, 5)
    desk.meter.refund(entry)
    assert await desk.used(key) == [(0, 0), (0, 0)]
    await desk.meter.charge(key, 5)


async def test_a_month_begins_anew(desk: Desk) -> None:
    """At midnight (UTC) the quota is whole again; a refund of the last month goes back to that month."""
    await desk.limit(requests=1)
    desk.now = datetime(2026, 12, 31, 23, 59, 30, tzinfo=UTC)
    entry = await desk.meter.charge(desk.ana, 1)
    with pytest.raises(QuotaExceeded) as refusal:
        await desk.meter.charge(desk.ana, 1)
    assert refusal.value.retry_after_s == 30
    desk.now += timedelta(seconds=30)
    await desk.meter.charge(desk.ana, 1)
    desk.meter.refund(entry)
    assert await desk.used() == [(1, 1)]
    report = await desk.meter.report(owners_of(desk.ana))
    assert (report.month, report.resets_at) == ("2027-01", datetime(2027, 2, 1, tzinfo=UTC))
    desk.now -= timedelta(seconds=1)
    assert await desk.used() == [(0, 0)]


async def test_a_changed_quota_counts_at_once(desk: Desk) -> None:
    """A quota below what is used already leaves nothing, not less than nothing; a wider one grants again."""
    assert await desk.granted(desk.ana, 3, MEGAPIXEL) == 3
    await desk.limit(requests=2, megapixels=1)
    (tally,) = (await desk.meter.report(owners_of(desk.ana))).tallies
    assert tally.remaining == (0, 0)
    assert await desk.granted(desk.ana, 1) == 0
    await desk.limit(requests=4)
    assert await desk.granted(desk.ana, 2) == 1


async def test_who_leaves_does_not_pay(desk: Desk) -> None:
    """A caller who is cancelled at whatever moment is not charged."""
    for steps in range(30):
        charge = asyncio.create_task(desk.meter.charge(desk.ana, 1))
        for _ in range(steps):
            await asyncio.sleep(0)
        charge.cancel()
        with suppress(asyncio.CancelledError):
            desk.meter.refund(await charge)
    assert await desk.used() == [(0, 0)]


async def test_who_leaves_while_the_others_pay_is_paid_back(desk: Desk) -> None:
    """A caller who leaves during the transaction gets back what it took; its neighbours pay."""
    written = asyncio.Event()
    event.listen(desk.engine.sync_engine, "commit", lambda _: written.set())
    charges = [asyncio.create_task(desk.meter.charge(desk.ana, 1)) for _ in range(3)]
    await asyncio.sleep(0)
    while not written.is_set():  # noqa: ASYNC110  (the event is set in another greenlet)
        await asyncio.sleep(0)
    charges[0].cancel()
    await asyncio.wait(charges)
    assert [charge.cancelled() for charge in charges] == [True, False, False]
    assert await desk.used() == [(2, 2)]


async def test_clients_and_outside_callers_are_counted_by_themselves(desk: Desk) -> None:
    """A service and a caller of another issuer have a count of their own, whatever their names look like."""
    service = Principal(desk.ana.subject, "job", None, frozenset(), None, client_id=desk.ana.subject)
    outside = Principal(f"https://issuer.example|{'ü' * 277}", "ada", None, frozenset(), None)
    assert len(outside.subject) == 300
    for caller in (service, outside):
        await desk.meter.charge(caller, 7)
        assert await desk.used(caller) == [(1, 7)]
    assert await desk.used() == [(0, 0)]


async def test_an_unwritten_refund_waits_for_the_database(desk: Desk) -> None:
    """While the rows cannot be had every charge is refused; a refund of that time is written when they can."""
    entry = await desk.meter.charge(desk.ana, 1)
    await rename(desk.engine, "usage", "away")
    desk.meter.refund(entry)
    answers = await asyncio.gather(*(desk.meter.charge(desk.ana, 1) for _ in range(3)), return_exceptions=True)
    assert all(isinstance(answer, DatabaseUnavailable | ProgrammingError) for answer in answers)
    await desk.meter.close()
    await rename(desk.engine, "away", "usage")
    assert await desk.used() == [(0, 0)]


async def test_without_a_database_nothing_is_granted() -> None:
    """Quotas fail closed: each caller hears that the database is away, and nobody waits for ever."""
    engine = open_engine("postgresql://127.0.0.1:1/nowhere")
    meter = UsageMeter(engine)
    caller = Principal("ana", "ana", None, frozenset(), None)
    answers = await asyncio.gather(*(meter.charge(caller, 1) for _ in range(5)), return_exceptions=True)
    assert {type(answer) for answer in answers} == {DatabaseUnavailable}
    await meter.close()
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


async def rename(engine: AsyncEngine, old: str, new: str) -> None:
    async with writing(engine) as connection:
        await connection.execute(text(f"ALTER TABLE {old} RENAME TO {new}"))
