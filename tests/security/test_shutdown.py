"""Line 27: whoever is told to stop, or to begin anew, loses no request."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).parents[2]
SAMPLE = (ROOT / "samples" / "yellowstone_forest.jpg").read_bytes()
CALLERS = 16


@dataclass
class Crowd:
    """Callers that send one request after another: half of them on connections that they keep as long as they may."""

    port: int
    token: str
    outcomes: Counter[str] = field(default_factory=Counter)
    stopping: bool = False

    async def run(self, during: Callable[[], Any]) -> None:
        callers = [asyncio.create_task(self._call(keep=bool(index % 2))) for index in range(CALLERS)]
        await self._answered(CALLERS * 2)
        try:
            await asyncio.to_thread(during)
            await self._answered(CALLERS * 2)
        finally:
            self.stopping = True
            await asyncio.wait_for(asyncio.gather(*callers), 20)

    async def _answered(self, more: int) -> None:
        """Until so many more are, or the gateway has gone."""
        until = self.outcomes["200"] + more
        while self.outcomes["200"] < until and not self.outcomes["gone"]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    async def _call(self, *, keep: bool) -> None:
        while not self.stopping:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except ConnectionRefusedError:
                self.outcomes["gone"] += 1
                return
            try:
                while await self._ask(reader, writer) and keep and not self.stopping:
                    pass
            except (OSError, EOFError) as error:
                self.outcomes[f"lost: {type(error).__name__}"] += 1
            finally:
                writer.close()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection may be used again."""
        head = f"POST /v1/predictions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {self.token}\r\n"
        head += f"Content-Type: image/jpeg\r\nContent-Length: {len(SAMPLE)}\r\n\r\n"
        writer.write(head.encode() + SAMPLE)
        answer = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        await reader.readexactly(int(answer.partition("content-length: ")[2].split()[0]))
        self.outcomes[answer.split()[1]] += 1
        return "connection: close" not in answer


def crowd_at(gateway: Any) -> Crowd:
    return Crowd(int(gateway.environment["PORT"]), gateway.token())


def workers_of(gateway: Any) -> set[str]:
    pid = gateway.process.pid
    return set(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


def wait_until(true: Callable[[], Any], within_s: float = 60) -> None:
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def refuses(port: int) -> bool:
    """Whether nobody listens any more."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_sigterm_under_load(new_gateway: Callable[..., Any], workers: str) -> None:
    """Sixteen callers and a SIGTERM: each request that was sent is answered, and the end comes within ten seconds."""
    gateway = new_gateway(MODEL__URL="stub://?latency_ms=10", WEB_CONCURRENCY=workers, DRAIN_SECONDS="0.5")
    crowd = crowd_at(gateway)
    started = time.monotonic()
    await crowd.run(lambda: gateway.process.send_signal(signal.SIGTERM) or gateway.process.wait(10))
    assert time.monotonic() - started < 15
    assert gateway.process.returncode == 0, gateway.log()
    assert set(crowd.outcomes) == {"200", "gone"}, crowd.outcomes


async def test_rolling_restart_under_load(new_gateway: Callable[..., Any]) -> None:
    """SIGHUP replaces the workers one after the other; sixteen callers do not notice."""
    gateway = new_gateway(MODEL__URL="stub://?latency_ms=10", WEB_CONCURRENCY="2", DRAIN_SECONDS="0.3")
    wait_until(lambda: len(workers_of(gateway)) == 2)
    before = workers_of(gateway)

    def restart() -> None:
        gateway.process.send_signal(signal.SIGHUP)
        wait_until(lambda: len(workers_of(gateway)) == 2 and workers_of(gateway).isdisjoint(before))

    crowd = crowd_at(gateway)
    await crowd.run(restart)
    assert set(crowd.outcomes) == {"200"}, crowd.outcomes


async def test_a_worker_that_is_killed_under_load(new_gateway: Callable[..., Any]) -> None:
    """What it had in hand is lost, once; nobody else notices, and all that was answered is on record."""
    gateway = new_gateway(MODEL__URL="stub://?latency_ms=10", WEB_CONCURRENCY="2", DRAIN_SECONDS="0.3")
    wait_until(lambda: gateway.log().count('"worker_ready"') == 2)
    crowd = crowd_at(gateway)
    lost = list[int]()

    def lost_so_far() -> int:
        return sum(count for outcome, count in crowd.outcomes.items() if outcome.startswith("lost"))

    def kill() -> None:
        killed = min(workers_of(gateway), key=int)
        os.kill(int(killed), signal.SIGKILL)
        wait_until(lambda: killed not in workers_of(gateway))
        time.sleep(0.2)  # for those who have yet to read that their connection ended
        lost.append(lost_so_far())
        wait_until(lambda: gateway.log().count('"worker_ready"') == 3)

    await crowd.run(kill)
    assert lost == [lost_so_far()]
    assert {outcome for outcome in crowd.outcomes if not outcome.startswith("lost")} == {"200"}, crowd.outcomes
    verified = gateway.run("ledger", "verify", "--json")
    assert verified.returncode == 0, verified.stdout
    assert json.loads(verified.stdout)["entries"] >= crowd.outcomes["200"]


def test_not_ready_at_once(new_gateway: Callable[..., Any]) -> None:
    """From the signal on /readyz is 503 and says so; what is asked meanwhile is answered, and ends its connection."""
    gateway = new_gateway(MODEL__URL="stub://", DRAIN_SECONDS="2")
    with httpx.Client(base_url=gateway.base_url) as client:
        assert "connection" not in client.get("/readyz").headers
        gateway.process.send_signal(signal.SIGTERM)
        wait_until(lambda: client.get("/readyz").status_code == 503, 1)
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json()["status"]) == (503, "stopping")
        assert answer.headers["connection"] == "close"
        assert client.get("/livez").status_code == 200
        assert gateway.token()
    assert gateway.process.wait(10) == 0


async def test_requests_under_way_are_finished(new_gateway: Callable[..., Any]) -> None:
    """What is running when the gateway stops is answered, and so is a request of which only a part has come."""
    gateway = new_gateway(MODEL__URL="stub://?latency_ms=1000", DRAIN_SECONDS="0")
    crowd = crowd_at(gateway)
    running, arriving = [await asyncio.open_connection("127.0.0.1", crowd.port) for _ in range(2)]
    arriving[1].write(b"GET /v1/me HTTP/1.1\r\nHost: local")
    asked = asyncio.create_task(crowd._ask(*running))
    active = 'http_server_active_requests{http_request_method="POST"} 1.0'
    await asyncio.to_thread(wait_until, lambda: active in httpx.get(gateway.metrics_url).text)
    gateway.process.send_signal(signal.SIGTERM)
    await asyncio.to_thread(wait_until, lambda: refuses(crowd.port))
    arriving[1].write(b"host\r\n\r\n")
    answer = await arriving[0].read()
    assert answer.startswith(b"HTTP/1.1 401 ")
    await asked
    assert crowd.outcomes == {"200": 1}
    assert await asyncio.to_thread(gateway.process.wait, 10) == 0
    for _, writer in (running, arriving):
        writer.close()


def test_ctrl_c_does_not_wait(new_gateway: Callable[..., Any]) -> None:
    """Ctrl-C at a terminal ends the gateway at once and in order, whatever DRAIN_SECONDS says."""
    for workers in ("1", "2"):
        gateway = new_gateway(MODEL__URL="stub://", DRAIN_SECONDS="60", WEB_CONCURRENCY=workers)
        started = time.monotonic()
        gateway.process.send_signal(signal.SIGINT)
        assert gateway.process.wait(5) == 0, gateway.log()
        assert time.monotonic() - started < 5


def test_a_closed_terminal(new_gateway: Callable[..., Any]) -> None:
    """Without workers SIGHUP is what it means: the terminal has gone, and the gateway ends in order."""
    gateway = new_gateway(MODEL__URL="stub://")
    gateway.process.send_signal(signal.SIGHUP)
    assert gateway.process.wait(10) == 0, gateway.log()


def test_no_worker_outlives_its_parent(new_gateway: Callable[..., Any]) -> None:
    """Workers whose parent was killed stop in order; nothing keeps the port."""
    gateway = new_gateway(MODEL__URL="stub://", DRAIN_SECONDS="0", WEB_CONCURRENCY="2")
    wait_until(lambda: len(workers_of(gateway)) == 2)
    workers = workers_of(gateway)
    os.kill(gateway.process.pid, signal.SIGKILL)
    gateway.process.wait(5)
    wait_until(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() for pid in workers))
