"""Quotas and the counting of usage, on both databases."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import event

from auth.errors import QuotaExceeded
from auth.principal import Principal
from auth.quotas.tallies import QuotaCharge, list_owners
from storage.driver import DriverConnection
from storage.errors import DatabaseUnavailable
from storage.transactions import writing
from tests.auth.quotas.meter_setup import MEGAPIXEL, MeterSetup


def make_charge(caller: Principal, pixels: int = 1) -> QuotaCharge:
    return QuotaCharge(list_owners(caller), "2026-11", 1, pixels)


async def test_use_is_counted_for_the_user_and_the_key(setup: MeterSetup) -> None:
    """Usage with a key counts for the key and its user; other usage of the user does not count for the key."""
    key = await setup.key()
    await setup.charge(setup.ana, 3)
    await setup.charge(key, 4)
    assert await setup.used(key) == [(2, 7), (1, 4)]


async def test_a_quota_of_requests_is_used_exactly(setup: MeterSetup) -> None:
    """Of a hundred charges in one transaction, exactly as many as the quota allows are granted and counted."""
    await setup.limit(requests=70)
    errors = await setup.charge_all([make_charge(setup.ana)] * 100)
    assert [error is None for error in errors] == [True] * 70 + [False] * 30
    assert await setup.used() == [(70, 70)]
    with pytest.raises(QuotaExceeded):
        await setup.meter.admit(setup.ana, 1)


async def test_the_highest_share_of_a_quota(setup: MeterSetup) -> None:
    """The highest share is that of the most used quota of any user or key; it is 0 in a new month."""
    key = await setup.key(requests=4)
    await setup.charge(key, MEGAPIXEL)
    assert await setup.meter.find_highest_share() == 0.25
    await setup.limit(megapixels=2)
    assert await setup.meter.find_highest_share() == 0.5
    setup.now += timedelta(days=30)
    assert await setup.meter.find_highest_share() == 0


async def test_a_quota_of_megapixels_is_used_exactly(setup: MeterSetup) -> None:
    """An image that fits exactly is granted, one pixel more is rejected, and a rejected one is not counted."""
    await setup.limit(megapixels=2)
    await setup.charge(setup.ana, MEGAPIXEL)
    with pytest.raises(QuotaExceeded) as rejected:
        await setup.charge(setup.ana, MEGAPIXEL + 1)
    assert (rejected.value.quota, rejected.value.holder) == ("megapixels", "account")
    await setup.charge(setup.ana, MEGAPIXEL)
    assert await setup.used() == [(2, 2 * MEGAPIXEL)]


async def test_the_user_and_the_key_are_charged_together(setup: MeterSetup) -> None:
    """If the quota of the key or the user is exhausted, neither is charged; the error names the holder."""
    key = await setup.key(requests=1)
    await setup.charge(key, 1)
    with pytest.raises(QuotaExceeded) as rejected:
        await setup.charge(key, 1)
    assert (rejected.value.quota, rejected.value.holder) == ("requests", "API key")
    wide = await setup.key(requests=10)
    await setup.limit(requests=1)
    with pytest.raises(QuotaExceeded) as rejected:
        await setup.charge(wide, 1)
    assert rejected.value.holder == "account"
    assert await setup.used(key) == [(1, 1), (1, 1)]
    assert await setup.used(wide) == [(1, 1), (0, 0)]


async def test_quotas_reset_each_month(setup: MeterSetup) -> None:
    """A quota resets at the end of the month (UTC), and the error says in how many seconds."""
    await setup.limit(requests=1)
    setup.now = datetime(2026, 12, 31, 23, 59, 30, tzinfo=UTC)
    await setup.charge(setup.ana, 1)
    with pytest.raises(QuotaExceeded) as rejected:
        await setup.charge(setup.ana, 1)
    assert rejected.value.retry_after_s == 30
    setup.now += timedelta(seconds=30)
    await setup.charge(setup.ana, 1)
    report = await setup.meter.report(list_owners(setup.ana))
    assert (report.month, report.resets_at) == ("2027-01", datetime(2027, 2, 1, tzinfo=UTC))
    assert report.tallies[0].requests == 1


async def test_a_changed_quota_takes_effect_at_once(setup: MeterSetup) -> None:
    """A quota lowered below the usage leaves zero, not a negative number; a raised quota grants requests again."""
    await setup.charge_all([make_charge(setup.ana, MEGAPIXEL)] * 3)
    await setup.limit(requests=2, megapixels=1)
    (tally,) = (await setup.meter.report(list_owners(setup.ana))).tallies
    assert tally.remaining == (0, 0)
    assert (await setup.charge_all([make_charge(setup.ana)]))[0] is not None
    await setup.limit(requests=4)
    await setup.charge(setup.ana, 1)
    with pytest.raises(QuotaExceeded):
        await setup.charge(setup.ana, 1)


async def test_known_callers_are_admitted_without_a_query(setup: MeterSetup) -> None:
    """A caller whose cached totals are below the quota is admitted without a query; a new caller is looked up."""
    queries: list[str] = []
    event.listen(setup.engine.sync_engine, "before_cursor_execute", lambda *arguments: queries.append(arguments[2]))
    await setup.meter.admit(setup.ana, 1)
    first = len(queries)
    assert first > 0
    await setup.meter.admit(setup.ana, 1)
    assert len(queries) == first


async def test_deferred_charges_are_counted_beyond_the_quota(setup: MeterSetup) -> None:
    """Deferred charges are all counted, even beyond the quota, and further requests are rejected."""
    await setup.limit(requests=1)
    await setup.charge_deferred([make_charge(setup.ana)] * 3)
    assert await setup.used() == [(3, 3)]
    with pytest.raises(QuotaExceeded):
        await setup.meter.admit(setup.ana, 1)


async def test_clients_and_external_callers_have_their_own_totals(setup: MeterSetup) -> None:
    """A client and a caller of an external issuer have their own totals, whatever their names."""
    client = Principal(setup.ana.subject, "job", None, frozenset(), None, client_id=setup.ana.subject)
    external = Principal(f"https://issuer.example|{'ü' * 277}", "ada", None, frozenset(), None)
    assert len(external.subject) == 300
    for caller in (client, external):
        await setup.charge(caller, 7)
        assert await setup.used(caller) == [(1, 7)]
    assert await setup.used() == [(0, 0)]


def refuse_connection(*_: object) -> None:
    raise ConnectionRefusedError


@asynccontextmanager
async def unavailable_database(setup: MeterSetup) -> AsyncIterator[None]:
    """Within the block, the database refuses connections."""
    await setup.engine.dispose()
    event.listen(setup.engine.sync_engine, "do_connect", refuse_connection)
    with pytest.raises(DatabaseUnavailable):
        await setup.used()
    yield
    event.remove(setup.engine.sync_engine, "do_connect", refuse_connection)


async def test_without_a_database_the_cached_totals_decide(setup: MeterSetup) -> None:
    """While the database is unavailable, a known caller is checked against cached totals and deferred charges."""
    await setup.limit(requests=2)
    await setup.charge(setup.ana, 1)
    async with unavailable_database(setup):
        setup.meter.charge_later(await setup.meter.admit(setup.ana, 1))
        with pytest.raises(QuotaExceeded):
            await setup.meter.admit(setup.ana, 1)


async def test_a_charge_that_was_rolled_back_is_counted_once_when_it_is_charged_later(setup: MeterSetup) -> None:
    """A charge whose transaction fails, and which is deferred instead, is in the cached totals once."""
    await setup.limit(requests=2)
    charge = await setup.meter.admit(setup.ana, 1)
    with suppress(LookupError):
        async with writing(setup.engine) as connection:
            await connection.run_sync(lambda blocking: setup.meter.charge(DriverConnection(blocking), [charge]))
            raise LookupError
    assert await setup.used() == [(0, 0)]
    async with unavailable_database(setup):
        setup.meter.charge_later(charge)
        setup.meter.charge_later(await setup.meter.admit(setup.ana, 1))
        with pytest.raises(QuotaExceeded):
            await setup.meter.admit(setup.ana, 1)


async def test_without_a_database_unknown_callers_are_admitted(setup: MeterSetup) -> None:
    """A caller without cached totals is admitted while the database is unavailable, and charged later."""
    await setup.limit(requests=1)
    async with unavailable_database(setup):
        charges = [await setup.meter.admit(setup.ana, 5) for _ in range(2)]
        for charge in charges:
            setup.meter.charge_later(charge)
    await setup.charge_deferred(charges)
    assert await setup.used() == [(2, 10)]
    with pytest.raises(QuotaExceeded):
        await setup.meter.admit(setup.ana, 1)
