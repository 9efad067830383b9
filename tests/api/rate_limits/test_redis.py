"""Limits that are counted in a real Redis: exact over processes, and half of them while it is away."""

from __future__ import annotations

import asyncio
import random
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from limits import parse
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from api.errors import SettingsError
from api.rate_limits.guarded import GuardedWindows, make_windows
from api.rate_limits.shared import REDIS_WAIT_S, RedisWindows
from api.rate_limits.windows import SLICES, Windows
from api.settings import Settings, load_settings
from monitoring.metrics import Metrics
from tests.experiments.limits import worst_lag_s

HOURLY = parse("10/hour")


@asynccontextmanager
async def opened(url: str, registry: CollectorRegistry | None = None) -> AsyncIterator[Windows]:
    """The windows of a gateway with this REDIS_URL."""
    settings = Settings(_env_file=None, redis_url=url)
    windows = make_windows(settings, Metrics(registry or CollectorRegistry()))
    await windows.open()
    try:
        yield windows
    finally:
        await windows.close()


async def until(true: Callable[[], bool], within_s: float = 10) -> None:
    async with asyncio.timeout(within_s):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_the_window_slides(redis_server: Any) -> None:
    """Two seconds of requests over the limit: no second holds more than the limit, and each comes near it."""
    windows, item, passed = RedisWindows(redis_server.url), parse("20/second"), list[tuple[float, float]]()
    began = time.monotonic()
    while time.monotonic() < began + 2.2:
        sent_at = time.monotonic()
        if (await windows.hit(item, "predict", "ana")).allowed:
            passed.append((sent_at, time.monotonic()))
        await asyncio.sleep(0.002)
    await windows.close()
    for (sent_at, _), (_, answered_at) in zip(passed, passed[20:], strict=False):
        assert answered_at - sent_at >= 1
    assert 40 <= len(passed) <= 60


async def test_a_window_is_no_millisecond_short(redis_server: Any) -> None:
    """Redis' time is cut to milliseconds: the part that is cut off is not given to the caller."""
    windows, item = RedisWindows(redis_server.url), parse("1/second")
    for caller in "ana", "ben", "cleo", "dan":
        passed = list[tuple[float, float]]()
        while len(passed) < 2:
            sent_at = time.monotonic()
            if (await windows.hit(item, "predict", caller)).allowed:
                passed.append((sent_at, time.monotonic()))
        (sent_at, _), (_, answered_at) = passed
        assert 1 <= answered_at - sent_at < 1.5
        await asyncio.sleep(random.uniform(0, 0.002))  # noqa: S311  (so that each begins elsewhere in a millisecond)
    await windows.close()


async def test_a_refused_caller_knows_when_to_come_back(redis_server: Any) -> None:
    """The told moment is when the first of the requests leaves the window."""
    windows, item = RedisWindows(redis_server.url), parse("2/second")
    first, second, third = [await windows.hit(item, "predict", "ana") for _ in range(3)]
    assert [one.allowed for one in (first, second, third)] == [True, True, False]
    assert [one.remaining for one in (first, second, third)] == [1, 0, 0]
    await asyncio.sleep(third.reset_at - time.monotonic() + 0.002)
    assert (await windows.hit(item, "predict", "ana")).allowed
    await windows.close()


async def test_a_caller_takes_little_of_redis(redis_server: Any) -> None:
    """A caller's requests take one key of a few slices, which goes with the window."""
    async with opened(redis_server.url) as windows:
        for _ in range(300):
            limit_result = await windows.hit(parse("100000/minute"), "predict", "ana")
            assert limit_result.reset_at - time.monotonic() <= 60
    (key,) = [line for line in redis_server.ask(b"KEYS atalaya:*ana*").decode().split() if line.startswith("atalaya:")]
    length = int(redis_server.ask(f"HLEN {key}".encode()).decode().strip(":\r\n"))
    assert 1 <= length <= SLICES
    # The window ends with the millisecond in which it began.
    assert 0 < int(redis_server.ask(f"PTTL {key}".encode()).decode().strip(":\r\n")) <= 60_001


@pytest.mark.parametrize("how", [signal.SIGSTOP, signal.SIGKILL])
async def test_redis_away_holds_up_nobody(redis_server: Any, how: signal.Signals) -> None:
    """While Redis hangs or is dead the event loop goes on; half of the rate holds; all of it again once it is back."""
    registry = CollectorRegistry()
    with capture_logs() as logs:
        async with opened(redis_server.url, registry) as windows:
            assert (await windows.hit(HOURLY, "predict", "ana")).item == HOURLY
            assert registry.get_sample_value("atalaya_limit_store_up", {"store": "redis"}) == 1
            redis_server.send(how)
            assert await worst_lag_s(windows) < 0.05
            assert windows.reduced
            assert registry.get_sample_value("atalaya_limit_store_up", {"store": "redis"}) == 0
            limit_results = [await windows.hit(HOURLY, "predict", "ana") for _ in range(7)]
            assert [limit_result.allowed for limit_result in limit_results] == [True] * 5 + [False] * 2
            if how is signal.SIGKILL:
                redis_server.start()
            else:
                redis_server.send(signal.SIGCONT)
            await until(lambda: not windows.reduced, within_s=5)
            assert (await windows.hit(HOURLY, "predict", "ana")).item == HOURLY
    assert (registry.get_sample_value("atalaya_limit_fallbacks_total", {"store": "redis"}) or 0) >= 7
    assert [line["event"] for line in logs] == ["limits_reduced", "limits_restored"]


async def test_the_request_that_finds_out_waits_a_moment(redis_server: Any) -> None:
    """Many requests that meet a Redis that hangs wait for it together, not one after the other."""
    async with opened(redis_server.url) as windows:
        redis_server.send(signal.SIGSTOP)
        began = time.perf_counter()
        limit_results = await asyncio.gather(*(windows.hit(HOURLY, "predict", "ana") for _ in range(200)))
        assert time.perf_counter() - began < 2 * REDIS_WAIT_S
        assert sum(limit_result.allowed for limit_result in limit_results) == 5
        redis_server.send(signal.SIGCONT)


async def test_who_asks_finds_out_first(redis_server: Any) -> None:
    """Whether the limits are whole can be asked before any request has met a Redis that hangs."""
    async with opened(redis_server.url) as windows:
        redis_server.send(signal.SIGSTOP)
        began = time.perf_counter()
        await windows.open()
        assert windows.reduced
        assert (await windows.hit(HOURLY, "predict", "ana")).item.amount == 5
        assert time.perf_counter() - began < REDIS_WAIT_S
        redis_server.send(signal.SIGCONT)


async def test_many_at_once_wait_for_their_turn(redis_server: Any) -> None:
    """A thousand requests at once are all counted in Redis, over a few connections."""
    async with opened(redis_server.url) as windows:
        item = parse("400/hour")
        limit_results = await asyncio.gather(*(windows.hit(item, "predict", "ana") for _ in range(1000)))
        assert sum(limit_result.allowed for limit_result in limit_results) == 400
        assert not windows.reduced
    assert redis_server.ask(b"CLIENT LIST").count(b" addr=") <= 9


async def test_a_gateway_starts_without_redis(redis_server: Any) -> None:
    """Redis need not be there at the start: half of the rate holds until it is, and the log names no address."""
    redis_server.kill()
    with capture_logs() as logs:
        async with opened(f"redis://user:hunter2@127.0.0.1:{redis_server.port}/0") as windows:
            assert windows.reduced
            assert (await windows.hit(HOURLY, "predict", "ana")).item.amount == 5
    assert [(line["event"], line["reason"]) for line in logs] == [("limits_reduced", "ConnectionError")]
    assert "hunter2" not in str(logs)


async def test_a_stranger_on_the_port_is_no_redis() -> None:
    """Something that accepts connections and says nothing is taken for a Redis that is away."""
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        async with opened(f"redis://127.0.0.1:{stranger.getsockname()[1]}") as windows:
            assert windows.reduced


async def test_the_workers_of_a_machine_share_the_half(redis_server: Any, tmp_path: Any) -> None:
    """While Redis is away the workers of one machine have half of the rate together."""
    settings = Settings(_env_file=None, redis_url=redis_server.url, atalaya_shared=tmp_path)
    workers = [make_windows(settings, Metrics(CollectorRegistry())) for _ in range(2)]
    for worker in workers:
        await worker.open()
    redis_server.kill()
    limit_results = [await workers[number % 2].hit(HOURLY, "predict", "ana") for number in range(10)]
    assert sum(limit_result.allowed for limit_result in limit_results) == 5
    for worker in workers:
        assert isinstance(worker, GuardedWindows)
        await worker.close()


@pytest.mark.parametrize(
    "url",
    ["http://hunter2@h", "redis://hunter2@", "redis://h:hunter2", "redis://h/hunter2", "rediss://hunter2@h:99999"],
)
def test_an_address_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Any, url: str) -> None:
    """A REDIS_URL that cannot be one is refused in one line without its value."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REDIS_URL", url)
    with pytest.raises(SettingsError, match=r"^REDIS_URL: ") as caught:
        load_settings()
    assert "hunter2" not in str(caught.value)
