"""Limits counted in a Redis that responds, but too slowly."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from socketserver import StreamRequestHandler, ThreadingTCPServer

import pytest
from limits import parse
from prometheus_client import CollectorRegistry

from api.rate_limits import redis_windows
from api.rate_limits.fallback import make_windows
from api.services.background.activity import Activity
from api.settings import Settings
from monitoring.metrics import Metrics
from tests.support.servers.running import running

REPLY_S, LIMIT_S = 0.3, 0.5
REQUESTS, CONNECTIONS = 200, 8


class SlowRedis(StreamRequestHandler):
    """Replies to the script, as if it allowed every request, only after REPLY_S, and to other commands at once."""

    def handle(self) -> None:
        while header := self.rfile.readline():
            words = [self.rfile.read(int(self.rfile.readline()[1:]) + 2)[:-2] for _ in range(int(header[1:]))]
            is_script = words[0] == b"EVALSHA"
            if is_script:
                time.sleep(REPLY_S)
            with suppress(ConnectionError):
                self.wfile.write(b"*3\r\n:1\r\n:9\r\n:1000\r\n" if is_script else b"+OK\r\n")


async def test_slow_redis_counts_as_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    """No request waits longer than the time limit, even if it gets no connection: the fallback counts it then."""
    monkeypatch.setattr(redis_windows, "REPLY_LIMIT_S", LIMIT_S)
    registry = CollectorRegistry()
    with running(ThreadingTCPServer(("127.0.0.1", 0), SlowRedis)) as server:
        settings = Settings(redis_url=f"redis://127.0.0.1:{server.server_address[1]}")
        windows = make_windows(settings, Metrics(registry), Activity(None))
        await asyncio.gather(*(windows.hit(parse("1000/hour"), "predict", "ana") for _ in range(REQUESTS)))
        await windows.close()
    # Each connection has time for one reply. On a slow machine, some come too late.
    fallbacks = registry.get_sample_value("atalaya_limit_fallbacks_total", {"store": "redis"}) or 0
    assert fallbacks >= REQUESTS - CONNECTIONS
