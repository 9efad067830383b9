"""Sliding windows in this process and over the workers of one machine, and what holds while they cannot be asked."""

from __future__ import annotations

import asyncio
import sqlite3
import statistics
import time
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import pytest
from limits import parse
from prometheus_client import CollectorRegistry
from starlette.requests import Request

from api.rate_limits.guarded import make_windows
from api.rate_limits.limiter import caller_network
from api.rate_limits.shared import MACHINE_WAIT_S, MachineWindows
from api.rate_limits.windows import SLICES, LocalWindows, StoreUnavailable, Windows
from api.settings import Settings
from monitoring.metrics import Metrics

WINDOW_S = 60


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["local", "machine"])
async def windows(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> AsyncIterator[Windows]:
    path = tmp_path / "limits.db"
    windows: Windows = LocalWindows(clock) if request.param == "local" else MachineWindows(path, clock)
    yield windows
    await windows.close()


@pytest.mark.parametrize("amount", [1, 7, 100])
async def test_no_window_holds_more_than_the_limit(windows: Windows, clock: Clock, amount: int) -> None:
    """Wherever a window begins, the limit passes in it and no more; what left it is given back within a slice."""
    random, passed = Random(amount), [0.0]  # noqa: S311
    item = parse(f"{amount}/minute")
    for _ in range(1000):
        clock.now += random.choice((0.0, 0.01, 1.0, 20.0)) * random.random()
        limit_result = await windows.hit(item, "predict", "ana")
        in_window = sum(at > clock.now - WINDOW_S for at in passed)
        lately = sum(at > clock.now - WINDOW_S - WINDOW_S / SLICES for at in passed)
        assert in_window < amount if limit_result.allowed else lately >= amount
        assert 0 <= limit_result.remaining <= amount - in_window - limit_result.allowed
        passed.extend([clock.now] * limit_result.allowed)
    assert len(passed) > amount


async def test_a_refused_caller_knows_when_to_come_back(windows: Windows, clock: Clock) -> None:
    """Until the told moment a caller is refused, and from then on let through."""
    item = parse("2/minute")
    for _ in range(2):
        assert (await windows.hit(item, "predict", "ana")).allowed
        clock.now += 10
    refused = await windows.hit(item, "predict", "ana")
    assert (refused.allowed, refused.remaining, refused.reset_at) == (False, 0, clock.now + 40)
    clock.now += 39.9
    assert not (await windows.hit(item, "predict", "ana")).allowed
    clock.now = refused.reset_at
    assert (await windows.hit(item, "predict", "ana")).allowed


async def test_callers_and_limits_do_not_mix(windows: Windows) -> None:
    """Each caller has an allowance of their own under each limit, and zero is none at all."""
    item = parse("1/minute")
    for name, caller in (("predict", "ana"), ("predict", "bob"), ("token", "ana")):
        assert [(await windows.hit(item, name, caller)).allowed for _ in range(2)] == [True, False]
    assert not (await windows.hit(parse("0/minute"), "predict", "eve")).allowed


async def test_callers_who_are_gone_are_forgotten(windows: Windows, clock: Clock, tmp_path: Path) -> None:
    """A flood of callers leaves nothing behind, and one caller takes no more than the slices of a window."""
    item = parse("100000/minute")

    def remembered() -> int:
        if isinstance(windows, LocalWindows):
            return len(windows)
        with sqlite3.connect(tmp_path / "limits.db") as connection:
            (count,) = connection.execute("SELECT count(*) FROM slices").fetchone()
        connection.close()
        return int(count)

    for caller in range(1000):
        await windows.hit(item, "token", str(caller))
    assert remembered() == 1000
    clock.now += WINDOW_S
    for _ in range(1000):
        await windows.hit(item, "token", "ana")
        clock.now += 0.1
    assert remembered() <= SLICES + 2


async def test_sharing_costs_less_than_a_fifth_of_a_millisecond(tmp_path: Path) -> None:
    """A hit in the file that the workers share takes less than 0.2 ms."""
    windows, took = MachineWindows(tmp_path / "limits.db"), []
    for _ in range(500):
        started = time.perf_counter()
        await windows.hit(parse("100/minute"), "predict", "ana")
        took.append(time.perf_counter() - started)
    await windows.close()
    assert statistics.median(took) < 0.0002


async def test_a_lock_that_a_worker_keeps_holds_nobody_up(tmp_path: Path) -> None:
    """While the shared file is locked a request waits for it once, the event loop never; half the rate holds then."""
    metrics = Metrics(CollectorRegistry())
    windows = make_windows(Settings(_env_file=None, atalaya_shared=tmp_path), metrics)
    await windows.open()
    item = parse("10/hour")
    assert (await windows.hit(item, "predict", "ana")).remaining == 9
    keeper = sqlite3.connect(tmp_path / "limits.db", isolation_level=None)
    keeper.execute("BEGIN IMMEDIATE")
    started = time.perf_counter()
    limit_results = [await windows.hit(item, "predict", "ana") for _ in range(7)]
    assert time.perf_counter() - started < 2 * MACHINE_WAIT_S
    assert [limit_result.allowed for limit_result in limit_results] == [True] * 5 + [False] * 2
    assert {limit_result.item.amount for limit_result in limit_results} == {5}
    assert windows.reduced
    keeper.execute("COMMIT")
    keeper.close()
    async with asyncio.timeout(10):
        while windows.reduced:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert (await windows.hit(item, "predict", "ana")).remaining == 8
    await windows.close()


async def test_a_folder_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    """Where there is no such folder the windows are away, and say nothing of its name."""
    windows = MachineWindows(tmp_path / "missing" / "limits.db")
    with pytest.raises(StoreUnavailable, match=r"^OperationalError$"):
        await windows.open()


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
    ],
)
def test_a_network_of_ipv6_is_one_caller(one: str, other: str, same: bool) -> None:
    """Whoever has one IPv6 address has 2^64 of them: they share a limit."""
    places = {
        caller_network(Request({"type": "http", "client": (address, 1), "headers": []})) for address in (one, other)
    }
    assert (len(places) == 1) is same
