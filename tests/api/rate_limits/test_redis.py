"""Limits counted in a real Redis: exact across processes, and half of each rate while it is unavailable."""

from __future__ import annotations

import asyncio
import itertools
import random
import re
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
from limits import RateLimitItem, parse
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from api.errors import SettingsError
from api.rate_limits import fallback, redis_windows
from api.rate_limits.fallback import FallbackWindows, make_windows
from api.rate_limits.redis_windows import REPLY_LIMIT_S, RedisWindows
from api.rate_limits.windows import SLICES, LimitResult, Windows
from api.services.background.activity import Activity
from api.settings import Settings, load_settings
from monitoring.metrics import Metrics
from tests.experiments.limits import measure_outage, worst_lag_s
from tests.support.polling import PATIENCE_S, wait_until_async

HOURLY = parse("10/hour")
MAX_WINDOW_S = 1 + 1 / SLICES + 0.002  # of one second: hits expire by slice, and Redis rounds to milliseconds


@contextmanager
def patient() -> Iterator[None]:
    """Wait longer for Redis than a gateway does, because the machine may be slow."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(fallback, "OPEN_LIMIT_S", PATIENCE_S)
        monkeypatch.setattr(redis_windows, "REPLY_LIMIT_S", PATIENCE_S)
        yield


@pytest.fixture
def patiently() -> Iterator[None]:
    with patient():
        yield


@asynccontextmanager
async def open_windows(url: str, registry: CollectorRegistry | None = None) -> AsyncIterator[Windows]:
    """Open the windows of a gateway with this REDIS_URL."""
    settings = Settings(redis_url=url)
    windows = make_windows(settings, Metrics(registry or CollectorRegistry()), Activity(None))
    with patient():
        await windows.open()
    try:
        yield windows
    finally:
        await windows.close()


@pytest.mark.usefixtures("patiently")
async def test_window_slides(redis_server: Any) -> None:
    """No second has more requests than the limit, and no request is rejected while fewer were allowed."""
    windows, item, passed = RedisWindows(redis_server.url), parse("20/second"), list[tuple[float, float]]()
    while len(passed) < 42:
        sent_at = time.monotonic()
        if (await windows.hit(item, "predict", "ana")).allowed:
            passed.append((sent_at, time.monotonic()))
        else:
            assert sum(received_at > sent_at - MAX_WINDOW_S for _, received_at in passed) >= 20
        await asyncio.sleep(0.002)
    await windows.close()
    for (sent_at, _), (_, received_at) in zip(passed, passed[20:], strict=False):
        assert received_at - sent_at >= 1


@pytest.mark.usefixtures("patiently")
async def test_window_is_never_too_short(redis_server: Any) -> None:
    """Although Redis's time is rounded down to milliseconds, two requests at one a second are a full second apart."""
    windows, item = RedisWindows(redis_server.url), parse("1/second")
    for caller in "ana", "ben", "cleo", "dan":
        passed = list[tuple[float, float]]()
        rejected_at = 0.0
        while len(passed) < 2:
            sent_at = time.monotonic()
            if (await windows.hit(item, "predict", caller)).allowed:
                passed.append((sent_at, time.monotonic()))
            else:
                rejected_at = sent_at
        (sent_at, begun_at), (_, received_at) = passed
        assert received_at - sent_at >= 1
        assert rejected_at - begun_at < MAX_WINDOW_S
        await asyncio.sleep(random.uniform(0, 0.002))  # noqa: S311  (start at another fraction of a millisecond)
    await windows.close()


async def hit_within_a_second(windows: Windows, item: RateLimitItem, times: int) -> tuple[str, list[LimitResult]]:
    """Return the first caller whose hits all fall into one second, and their results; a slow machine needs several."""
    for caller in map(str, itertools.count()):
        began = time.monotonic()
        results = [await windows.hit(item, "predict", caller) for _ in range(times)]
        if time.monotonic() - began < 1:
            break
    return caller, results


@pytest.mark.usefixtures("patiently")
async def test_rejected_caller_is_allowed_at_the_reset_time(redis_server: Any) -> None:
    """The reported reset time is when the first of the requests leaves the window."""
    windows, item = RedisWindows(redis_server.url), parse("2/second")
    caller, (first, second, third) = await hit_within_a_second(windows, item, 3)
    assert [result.allowed for result in (first, second, third)] == [True, True, False]
    assert [result.remaining for result in (first, second, third)] == [1, 0, 0]
    await asyncio.sleep(third.reset_at - time.monotonic() + 0.002)
    assert (await windows.hit(item, "predict", caller)).allowed
    await windows.close()


@pytest.mark.usefixtures("patiently")
async def test_several_requests_are_counted_together_or_not_at_all(redis_server: Any) -> None:
    """More requests than the window still allows are rejected without being counted."""
    async with open_windows(redis_server.url) as windows:
        results = [await windows.hit(parse("5/hour"), "predict", "ana", number) for number in (2, 4, 3, 1)]
    assert [result.allowed for result in results] == [True, False, True, False]
    assert [result.remaining for result in results] == [3, 3, 0, 0]


@pytest.mark.usefixtures("patiently")
async def test_caller_takes_one_small_key(redis_server: Any) -> None:
    """A caller takes one key with at most the slices of a window, which expires with the window."""
    async with open_windows(redis_server.url) as windows:
        for _ in range(300):
            result = await windows.hit(parse("100000/minute"), "predict", "ana")
            assert result.reset_at - time.monotonic() <= 60
    (key,) = [line for line in redis_server.ask(b"KEYS atalaya:*ana*").decode().split() if line.startswith("atalaya:")]
    length = int(redis_server.ask(f"HLEN {key}".encode()).decode().strip(":\r\n"))
    assert 3 <= length <= SLICES + 2  # plus the sum of the slices and the number of the oldest
    # One millisecond more than the window: see the rounding in redis_windows.
    assert 0 < int(redis_server.ask(f"PTTL {key}".encode()).decode().strip(":\r\n")) <= 60_001


@pytest.mark.usefixtures("patiently")
async def test_sum_is_that_of_the_slices(redis_server: Any) -> None:
    """After allowed and rejected requests at random times, a key has the sum of its slices and no expired slices."""
    windows, item = RedisWindows(redis_server.url), parse("30/second")
    for _ in range(150):
        began = time.monotonic()
        result = await windows.hit(item, "predict", "ana")
        fields = read_key(redis_server, "ana")
        if time.monotonic() - began > 1:  # the machine is so slow that the key may have expired
            continue
        counts = {int(name): int(value.partition(":")[0]) for name, value in fields.items() if name.isdigit()}
        assert int(fields["used"]) == sum(counts.values()) == item.amount - result.remaining
        assert int(fields["oldest"]) == min(counts)
        assert len(counts) <= SLICES + 1
        await asyncio.sleep(random.choice([0, 0.01, 0.02, 0.1]))  # noqa: S311  (not for secrets)
    await windows.close()


def read_key(server: Any, caller: str) -> dict[str, str]:
    """The fields of the only key of a caller; none once it has expired."""
    (key,) = re.findall(r"atalaya:\S+", server.ask(f"KEYS atalaya:*{caller}*".encode()).decode()) or ["atalaya:none"]
    texts = re.findall(r"\$\d+\r\n(.*)\r\n", server.ask(f"HGETALL {key}".encode()).decode())
    return dict(zip(texts[::2], texts[1::2], strict=True))


@pytest.mark.parametrize("how", [signal.SIGSTOP, signal.SIGKILL])
async def test_unavailable_redis_does_not_block_the_event_loop(redis_server: Any, how: signal.Signals) -> None:
    """While Redis hangs or is down, the event loop is not blocked and half of the rate applies, until Redis is back."""
    registry = CollectorRegistry()
    with capture_logs() as logs:
        async with open_windows(redis_server.url, registry) as windows:
            with patient():
                assert (await windows.hit(HOURLY, "predict", "ana")).item == HOURLY
                healthy_lag_s = await worst_lag_s(windows)
            assert registry.get_sample_value("atalaya_limit_store_up", {"store": "redis"}) == 1
            redis_server.send(how)
            assert (await measure_outage(windows, healthy_lag_s)).is_harmless
            assert windows.reduced
            assert registry.get_sample_value("atalaya_limit_store_up", {"store": "redis"}) == 0
            results = [await windows.hit(HOURLY, "predict", "ana") for _ in range(7)]
            assert [result.allowed for result in results] == [True] * 5 + [False] * 2
            if how is signal.SIGKILL:
                redis_server.start()
            else:
                redis_server.send(signal.SIGCONT)
            await wait_until_async(lambda: not windows.reduced)
            with patient():
                assert (await windows.hit(HOURLY, "predict", "ana")).item == HOURLY
    assert (registry.get_sample_value("atalaya_limit_fallbacks_total", {"store": "redis"}) or 0) >= 7
    assert [line["event"] for line in logs] == ["limits_reduced", "limits_restored"]


async def test_requests_wait_for_a_hanging_redis_together(redis_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Concurrent requests wait for a hanging Redis at the same time, not one after another."""
    limit_s = 4 * REPLY_LIMIT_S  # so long that a busy machine does not take ten times as long
    async with open_windows(redis_server.url) as windows:
        monkeypatch.setattr(redis_windows, "REPLY_LIMIT_S", limit_s)
        redis_server.send(signal.SIGSTOP)
        started = time.perf_counter()
        results = await asyncio.gather(*(windows.hit(HOURLY, "predict", "ana") for _ in range(200)))
        assert time.perf_counter() - started < 10 * limit_s  # one after another they would wait 200 times
        assert sum(result.allowed for result in results) == 5
        redis_server.send(signal.SIGCONT)


async def test_opening_detects_a_hanging_redis(redis_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening the windows again detects a hanging Redis before any request waits for it."""
    async with open_windows(redis_server.url) as windows:
        monkeypatch.setattr(redis_windows, "REPLY_LIMIT_S", PATIENCE_S)
        redis_server.send(signal.SIGSTOP)
        started = time.perf_counter()
        await windows.open()
        assert windows.reduced
        assert (await windows.hit(HOURLY, "predict", "ana")).item.amount == 5
        assert time.perf_counter() - started < PATIENCE_S  # the hit itself did not wait
        redis_server.send(signal.SIGCONT)


@pytest.mark.usefixtures("patiently")
async def test_concurrent_requests_share_few_connections(redis_server: Any) -> None:
    """A thousand concurrent requests are all counted in Redis, over at most eight connections."""
    async with open_windows(redis_server.url) as windows:
        item = parse("400/hour")
        results = await asyncio.gather(*(windows.hit(item, "predict", "ana") for _ in range(1000)))
        assert sum(result.allowed for result in results) == 400
        assert not windows.reduced
    assert redis_server.ask(b"CLIENT LIST").count(b" addr=") <= 9


async def test_gateway_starts_without_redis(redis_server: Any) -> None:
    """Without Redis at startup, half of the rate is allowed, and the log does not contain the password."""
    redis_server.kill()
    with capture_logs() as logs:
        async with open_windows(f"redis://user:hunter2@127.0.0.1:{redis_server.port}/0") as windows:
            assert windows.reduced
            assert (await windows.hit(HOURLY, "predict", "ana")).item.amount == 5
    assert [(line["event"], line["reason"]) for line in logs] == [("limits_reduced", "ConnectionError")]
    assert "hunter2" not in str(logs)


async def test_silent_server_counts_as_unavailable() -> None:
    """A server that accepts connections and sends nothing counts as an unavailable Redis."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        settings = Settings(redis_url=f"redis://127.0.0.1:{server.getsockname()[1]}")
        windows = make_windows(settings, Metrics(CollectorRegistry()), Activity(None))
        await windows.open()
        assert windows.reduced
        await windows.close()


async def test_workers_share_the_reduced_rate(redis_server: Any, tmp_path: Any) -> None:
    """While Redis is unavailable, the workers of one machine together have half of the rate."""
    settings = Settings(redis_url=redis_server.url, atalaya_shared=tmp_path)
    workers = [make_windows(settings, Metrics(CollectorRegistry()), Activity(None)) for _ in range(2)]
    with patient():
        for worker in workers:
            await worker.open()
    redis_server.kill()
    results = [await workers[number % 2].hit(HOURLY, "predict", "ana") for number in range(10)]
    assert sum(result.allowed for result in results) == 5
    for worker in workers:
        assert isinstance(worker, FallbackWindows)
        await worker.close()


@pytest.mark.parametrize(
    "url",
    ["http://hunter2@h", "redis://hunter2@", "redis://h:hunter2", "redis://h/hunter2", "rediss://hunter2@h:99999"],
)
def test_invalid_redis_url_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Any, url: str) -> None:
    """An invalid REDIS_URL is rejected with one line that does not contain its value."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REDIS_URL", url)
    with pytest.raises(SettingsError, match=r"^REDIS_URL: ") as caught:
        load_settings()
    assert "hunter2" not in str(caught.value)
