"""Processes that charge the same quotas at the same time, on both databases."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from auth.principal import Principal
from tests.auth.quotas.meter_setup import MEGAPIXEL, MeterSetup
from tests.support.polling import PATIENCE_S

CHARGES = 80

# A process that charges the given keys in turn, and prints how many charges were granted.
PROGRAM = """
import sys
from storage.driver import DriverConnection
from storage.engine import open_blocking_engine
from storage.transactions import WRITING
from auth.principal import Principal
from auth.quotas.tallies import QuotaCharge, apply_charges, format_month, list_owners
import time

url, user, count, *keys = sys.argv[1:]
engine = open_blocking_engine(url, 60).execution_options(**WRITING)
callers = [Principal(user, "ana", None, frozenset(), None, key_id=key) for key in keys]
charges = [QuotaCharge(list_owners(caller), format_month(time.time()), 1, 250_000) for caller in callers]
print("ready", flush=True)
sys.stdin.readline()
granted = 0
for index in range(int(count)):
    with engine.begin() as connection:
        errors, _ = apply_charges(DriverConnection(connection), [charges[index % len(charges)]])
    granted += errors == [None]
print(granted)
engine.dispose()
"""


@pytest.mark.usefixtures("within_one_month")
async def test_four_processes_count_exactly(setup: MeterSetup, database_url: str) -> None:
    """Four processes that charge the same keys at once, in different orders, count every charge once."""
    one, two = await setup.key(), await setup.key()
    setup.now = datetime.now(UTC)
    granted = await asyncio.to_thread(run_four_processes, database_url, [one, two])
    assert granted == [CHARGES] * 4
    total = 4 * CHARGES
    assert await setup.used(one) == [(total, total * 250_000), (total // 2, total // 2 * 250_000)]
    assert (await setup.used(two))[1] == (total // 2, total // 2 * 250_000)


@pytest.mark.usefixtures("within_one_month")
async def test_four_processes_stop_exactly_at_the_quota(setup: MeterSetup, database_url: str) -> None:
    """Four processes together grant exactly as many charges as the quotas of the account and the key allow."""
    narrow, wide = await setup.key(requests=45), await setup.key()
    await setup.limit(megapixels=30)
    setup.now = datetime.now(UTC)
    granted = await asyncio.to_thread(run_four_processes, database_url, [narrow, wide])
    assert sum(granted) == 120  # 30 megapixels, of a quarter each
    account, narrow_used = await setup.used(narrow)
    assert account == (120, 30 * MEGAPIXEL)
    assert narrow_used[0] <= 45
    assert narrow_used[0] + (await setup.used(wide))[1][0] == 120


def run_four_processes(url: str, callers: list[Principal]) -> list[int]:
    """Return how many charges each of four simultaneous processes was granted."""
    processes = []
    for index in range(4):
        keys = [str(caller.key_id) for caller in (callers if index % 2 else callers[::-1])]
        command = [sys.executable, "-c", PROGRAM, url, callers[0].subject, str(CHARGES), *keys]
        processes.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
    for process in processes:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    return [int(process.communicate(timeout=PATIENCE_S)[0]) for process in processes]
