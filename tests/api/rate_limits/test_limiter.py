"""Sliding windows in one process and shared by the workers of one machine, and the fallback."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from limits import RateLimitItem, parse
from prometheus_client import CollectorRegistry
from starlette.requests import Request

from api.rate_limits.callers import caller_network
from api.rate_limits.fallback import make_windows
from api.rate_limits.machine_windows import MachineWindows
from api.rate_limits.windows import SLICES, LimitResult, LocalWindows, StoreUnavailable, Windows
from api.services.background.activity import Activity
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
async def test_no_window_holds_more_requests_than_the_limit(windows: Windows, clock: Clock, amount: int) -> None:
    """Any interval as long as the window has at most the limit, and capacity becomes free at most one slice late."""
    random, passed = Random(amount), [0.0]  # noqa: S311
    item = parse(f"{amount}/minute")
    for _ in range(1000):
        clock.now += random.choice((0.0, 0.01, 1.0, 20.0)) * random.random()
        result = await windows.hit(item, "predict", "ana")
        in_window = sum(at > clock.now - WINDOW_S for at in passed)
        in_window_and_slice = sum(at > clock.now - WINDOW_S - WINDOW_S / SLICES for at in passed)
        assert in_window < amount if result.allowed else in_window_and_slice >= amount
        assert 0 <= result.remaining <= amount - in_window - result.allowed
        passed.extend([clock.now] * result.allowed)
    assert len(passed) > amount


async def test_rejected_caller_is_allowed_at_the_reset_time(windows: Windows, clock: Clock) -> None:
    """A caller over the limit is rejected until the reported reset time, and allowed from then on."""
    item = parse("2/minute")
    for _ in range(2):
        assert (await windows.hit(item, "predict", "ana")).allowed
        clock.now += 10
    rejected = await windows.hit(item, "predict", "ana")
    assert (rejected.allowed, rejected.remaining, rejected.reset_at) == (False, 0, clock.now + 40)
    clock.now += 39.9
    assert not (await windows.hit(item, "predict", "ana")).allowed
    clock.now = rejected.reset_at
    assert (await windows.hit(item, "predict", "ana")).allowed


async def test_several_requests_are_counted_together_or_not_at_all(windows: Windows) -> None:
    """More requests than the window still allows are rejected without being counted."""
    item = parse("5/minute")
    results = [await windows.hit(item, "predict", "ana", number) for number in (2, 4, 3, 1)]
    assert [result.allowed for result in results] == [True, False, True, False]
    assert [result.remaining for result in results] == [3, 3, 0, 0]


async def test_callers_and_limits_are_counted_separately(windows: Windows) -> None:
    """Each caller is counted separately under each limit, and a limit of zero allows nothing."""
    item = parse("1/minute")
    for name, caller in (("predict", "ana"), ("predict", "bob"), ("token", "ana")):
        assert [(await windows.hit(item, name, caller)).allowed for _ in range(2)] == [True, False]
    assert not (await windows.hit(parse("0/minute"), "predict", "eve")).allowed


async def test_expired_callers_are_removed(windows: Windows, clock: Clock, tmp_path: Path) -> None:
    """Callers are removed when their windows end, and one caller stores at most the slices of a window."""
    item = parse("100000/minute")

    def stored() -> int:
        if isinstance(windows, LocalWindows):
            return len(windows)
        with sqlite3.connect(tmp_path / "limits.db") as connection:
            (count,) = connection.execute("SELECT count(*) FROM slices").fetchone()
        connection.close()
        return int(count)

    for caller in range(1000):
        await windows.hit(item, "token", str(caller))
    assert stored() == 1000
    clock.now += WINDOW_S
    for _ in range(1000):
        await windows.hit(item, "token", "ana")
        clock.now += 0.1
    assert stored() <= SLICES + 2


async def test_shared_hit_does_not_wait_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hit in the file that the workers share waits neither for the disk nor, on the event loop, for a lock."""
    connect, opened = sqlite3.connect, list[sqlite3.Connection]()

    def record(*arguments: Any, **options: Any) -> sqlite3.Connection:
        opened.append(connect(*arguments, **options))
        return opened[-1]

    monkeypatch.setattr(sqlite3, "connect", record)
    windows = MachineWindows(tmp_path / "limits.db")
    for _ in range(2):
        await windows.hit(parse("100/minute"), "predict", "ana")
    (connection,) = opened
    pragmas = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("synchronous", "busy_timeout")]
    assert pragmas == [0, 0]  # synchronous is OFF
    await windows.close()


async def test_locked_store_delays_only_one_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the shared file is locked, one request waits for it, and then half of the rate is counted locally."""
    metrics = Metrics(CollectorRegistry())
    windows = make_windows(Settings(atalaya_shared=tmp_path), metrics, Activity(None))
    await windows.open()
    item = parse("10/hour")
    assert (await windows.hit(item, "predict", "ana")).remaining == 9
    lock_holder = sqlite3.connect(tmp_path / "limits.db", isolation_level=None)
    lock_holder.execute("BEGIN IMMEDIATE")
    hit, waited = MachineWindows.hit, list[str]()

    async def record(self: MachineWindows, item: RateLimitItem, name: str, caller: str, number: int = 1) -> LimitResult:
        waited.append(name)
        return await hit(self, item, name, caller, number)

    monkeypatch.setattr(MachineWindows, "hit", record)
    results = [await windows.hit(item, "predict", "ana") for _ in range(7)]
    assert waited.count("predict") == 1  # the others are checks whether the file is available again
    assert [result.allowed for result in results] == [True] * 5 + [False] * 2
    assert {result.item.amount for result in results} == {5}
    assert windows.reduced
    lock_holder.execute("COMMIT")
    lock_holder.close()
    async with asyncio.timeout(60):
        while windows.reduced:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert (await windows.hit(item, "predict", "ana")).remaining == 8
    await windows.close()


async def test_missing_directory_makes_the_store_unavailable(tmp_path: Path) -> None:
    """Without its directory the store is unavailable, and the error does not contain the directory's name."""
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
def test_ipv6_network_is_one_caller(one: str, other: str, same: bool) -> None:
    """The addresses of one /64 IPv6 network share a limit, because one client can use all of them."""
    networks = {
        caller_network(Request({"type": "http", "client": (address, 1), "headers": []})) for address in (one, other)
    }
    assert (len(networks) == 1) is same
