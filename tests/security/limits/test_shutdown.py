"""Threat T27: a gateway that stops or restarts loses no request."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path

import httpx
import pytest

from tests.support.callers import make_callers, send_prediction
from tests.support.gateway import DECODED, TIMEOUT_S, Gateway
from tests.support.images.pngs import make_white_png
from tests.support.polling import PATIENCE_S, wait_until

# Long enough to distinguish a gateway that waits for it from one that does not, even on a slow machine.
LONG_DRAIN_S = 300
PATIENT = {"MODEL__QUEUE_SECONDS": "60"}  # sixteen callers do not overload a slow machine
# The gateway closes idle connections after that time, even of a caller that a busy machine has paused since a response
# that did not ask it to reconnect.
DRAINING = {"DRAIN_SECONDS": "3", **PATIENT}
# Draining takes three seconds, and the requests in progress some milliseconds.
STOPPED_WITHIN_S = 30.0
# The limit is 8 s; without one of its own, the parent process would take 3.5 s more.
STOPPED_WITH_HUNG_RECEIVERS_S = 10.0


def is_refusing(port: int) -> bool:
    """Whether no process listens on the port any more."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_sigterm_under_load_loses_no_request(new_gateway: Callable[..., Gateway], workers: str) -> None:
    """T27: after a SIGTERM under the load of sixteen callers every request gets its response, and the gateway ends."""
    gateway = new_gateway(MODEL__URL="stub://?latency_ms=10", WEB_CONCURRENCY=workers, **DRAINING)
    callers = make_callers(gateway)
    stopped_s: list[float] = []

    def stop() -> None:
        started = time.monotonic()
        gateway.process.send_signal(signal.SIGTERM)
        gateway.process.wait(PATIENCE_S)
        stopped_s.append(time.monotonic() - started)

    await callers.run(stop)
    assert stopped_s[0] < STOPPED_WITHIN_S
    assert gateway.process.returncode == 0, gateway.log()
    assert set(callers.outcomes) == {"200", "gone"}, callers.outcomes


async def test_a_rolling_restart_under_load_loses_no_request(new_gateway: Callable[..., Gateway]) -> None:
    """T27: SIGHUP replaces the workers one after the other, and sixteen callers see only successes."""
    gateway = new_gateway(MODEL__URL="stub://?latency_ms=10", WEB_CONCURRENCY="2", **DRAINING)
    wait_until(lambda: len(gateway.workers()) == 2)
    before = set(gateway.workers())

    def restart() -> None:
        gateway.process.send_signal(signal.SIGHUP)
        wait_until(lambda: len(gateway.workers()) == 2 and before.isdisjoint(gateway.workers()))

    callers = make_callers(gateway)
    await callers.run(restart)
    assert set(callers.outcomes) == {"200"}, callers.outcomes


def test_a_changed_drain_time_does_not_kill_replaced_workers(new_gateway: Callable[..., Gateway]) -> None:
    """T27: workers that SIGHUP started keep the time to drain that the supervisor waits for."""
    gateway = new_gateway(MODEL__URL="stub://", WEB_CONCURRENCY="2")
    gateway.stop()
    del gateway.environment["DRAIN_SECONDS"]
    (gateway.folder / ".env").write_text("DRAIN_SECONDS=0.3\n")
    gateway.start()
    wait_until(lambda: len(gateway.workers()) == 2)
    (gateway.folder / ".env").write_text(f"DRAIN_SECONDS={LONG_DRAIN_S}\n")
    before = set(gateway.workers())
    gateway.process.send_signal(signal.SIGHUP)
    wait_until(lambda: len(gateway.workers()) == 2 and before.isdisjoint(gateway.workers()))
    gateway.process.send_signal(signal.SIGTERM)
    assert gateway.process.wait(PATIENCE_S) == 0, gateway.log()
    assert '"worker_killed"' not in gateway.log()


def test_a_gateway_that_nohup_started_ignores_the_end_of_its_terminal(new_gateway: Callable[..., Gateway]) -> None:
    """T27: SIGHUP does not stop a process that inherited that it is ignored."""
    gateway = new_gateway(MODEL__URL="stub://")
    gateway.stop()
    gateway.command = ["nohup", *gateway.command]
    gateway.start()
    gateway.process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        gateway.process.wait(2)
    assert gateway.client("olga").get("/v1/me").status_code == 200


async def test_a_killed_worker_loses_only_its_own_requests(new_gateway: Callable[..., Gateway]) -> None:
    """T27: only the requests that a killed worker was serving are lost; all others succeed and are recorded."""
    gateway = new_gateway(MODEL__URL="stub://?latency_ms=10", WEB_CONCURRENCY="2", DRAIN_SECONDS="0.3", **PATIENT)
    wait_until(lambda: gateway.log().count('"worker_ready"') == 2)
    callers = make_callers(gateway)
    lost: list[int] = []

    def kill() -> None:
        killed = min(gateway.workers())
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: killed not in gateway.workers())
        turns = list(callers.turns)
        # Two more: a caller may read a response of the killed worker now, and lose its next request to that worker.
        wait_until(lambda: all(now > then + 1 for now, then in zip(callers.turns, turns, strict=True)))
        lost.append(callers.lost)
        wait_until(lambda: gateway.log().count('"worker_ready"') == 3)

    await callers.run(kill)
    assert lost == [callers.lost]
    assert {outcome for outcome in callers.outcomes if not outcome.startswith("lost")} == {"200"}, callers.outcomes
    verified = gateway.run("ledger", "verify", "--json")
    assert verified.returncode == 0, verified.stdout
    assert json.loads(verified.stdout)["entries"] >= callers.outcomes["200"]


def test_a_stopping_gateway_is_not_ready_and_still_serves(new_gateway: Callable[..., Gateway]) -> None:
    """T27: after SIGTERM, /readyz returns a 503, and other requests are still served."""
    gateway = new_gateway(MODEL__URL="stub://", DRAIN_SECONDS=str(LONG_DRAIN_S))
    with httpx.Client(base_url=gateway.base_url, timeout=TIMEOUT_S) as client:
        assert "connection" not in client.get("/readyz").headers
        gateway.process.send_signal(signal.SIGTERM)
        wait_until(lambda: client.get("/readyz").status_code == 503)
        response = client.get("/readyz")
        assert (response.status_code, response.json()["status"]) == (503, "stopping")
        assert response.headers["connection"] == "close"
        assert client.get("/livez").status_code == 200
        assert gateway.token()
    gateway.process.send_signal(signal.SIGINT)  # ends the draining
    assert gateway.process.wait(PATIENCE_S) == 0


def test_a_second_signal_leaves_nothing_unfinished(new_gateway: Callable[..., Gateway]) -> None:
    """T27: a gateway that gets SIGTERM and then SIGINT logs no error, and has written the refusals to the audit log."""
    gateway = new_gateway(MODEL__URL="stub://", DRAIN_SECONDS=str(LONG_DRAIN_S))
    gateway.process.send_signal(signal.SIGTERM)
    wait_until(lambda: gateway.get("/readyz").status_code == 503)
    assert gateway.log_in("ana", "wrong horse battery").status_code == 400
    gateway.process.send_signal(signal.SIGINT)
    assert gateway.process.wait(PATIENCE_S) == 0
    assert [line for line in gateway.log().splitlines() if '"level": "error"' in line] == []
    assert "token refused" in gateway.run("audit", "--event", "token").stdout


async def test_requests_in_progress_are_finished(new_gateway: Callable[..., Gateway]) -> None:
    """T27: a stopping gateway finishes the prediction in progress, and a request that has only partly arrived."""
    gateway = new_gateway(MODEL__URL="stub://?latency_ms=1000", DRAIN_SECONDS="0")
    token = gateway.token()
    running, arriving = [await asyncio.open_connection("127.0.0.1", gateway.port) for _ in range(2)]
    arriving[1].write(b"GET /v1/me HTTP/1.1\r\nHost: local")
    prediction = asyncio.create_task(send_prediction(*running, token))
    await asyncio.to_thread(wait_until, lambda: gateway.metric(DECODED) == 1)
    gateway.process.send_signal(signal.SIGTERM)
    await asyncio.to_thread(wait_until, lambda: is_refusing(gateway.port))
    arriving[1].write(b"host\r\n\r\n")
    response = await arriving[0].read()
    assert response.startswith(b"HTTP/1.1 401 ")
    status, _ = await prediction
    assert status == "200"
    assert await asyncio.to_thread(gateway.process.wait, PATIENCE_S) == 0
    for _, writer in (running, arriving):
        writer.close()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_ctrl_c_does_not_drain(new_gateway: Callable[..., Gateway], workers: str) -> None:
    """T27: SIGINT, as Ctrl-C sends it, stops the gateway gracefully without waiting for DRAIN_SECONDS."""
    gateway = new_gateway(MODEL__URL="stub://", DRAIN_SECONDS=str(LONG_DRAIN_S), WEB_CONCURRENCY=workers)
    gateway.process.send_signal(signal.SIGINT)
    assert gateway.process.wait(LONG_DRAIN_S / 2) == 0, gateway.log()


def test_a_closed_terminal_stops_the_gateway(new_gateway: Callable[..., Gateway]) -> None:
    """T27: without workers SIGHUP, as a closed terminal sends it, stops the gateway gracefully."""
    gateway = new_gateway(MODEL__URL="stub://")
    gateway.process.send_signal(signal.SIGHUP)
    assert gateway.process.wait(PATIENCE_S) == 0, gateway.log()


def test_no_worker_outlives_its_parent(new_gateway: Callable[..., Gateway]) -> None:
    """T27: workers stop after their parent was killed."""
    gateway = new_gateway(MODEL__URL="stub://", WEB_CONCURRENCY="2")
    wait_until(lambda: len(gateway.workers()) == 2)
    workers = gateway.workers()
    gateway.kill()
    wait_until(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() for pid in workers))


def test_hung_receivers_do_not_prolong_the_shutdown(new_gateway: Callable[..., Gateway]) -> None:
    """T27: with a prediction that never ends, and receivers that never respond, the gateway ends within its limit."""
    with socket.create_server(("127.0.0.1", 0)) as hung:  # the kernel completes connections, which nobody accepts
        address = f"127.0.0.1:{hung.getsockname()[1]}"
        gateway = new_gateway(
            MODEL__URL="stub://?hang=white",
            WEB_CONCURRENCY="2",
            DRAIN_SECONDS="0",
            SENTRY_DSN=f"http://publickey@{address}/7",
            LOGS__SEND_URL=f"http://{address}/",
        )
        wait_until(lambda: gateway.log().count('"worker_ready"') == 2)
        os.kill(gateway.workers()[0], signal.SIGKILL)  # the parent reports that to Sentry
        wait_until(lambda: gateway.log().count('"worker_ready"') == 3)
        headers = {"Authorization": f"Bearer {gateway.token()}"}
        with ThreadPoolExecutor(1) as caller:
            response = caller.submit(gateway.post, "/v1/predictions", files={"file": make_white_png()}, headers=headers)
            wait_until(lambda: gateway.metric(DECODED) == 1)
            started = time.monotonic()
            gateway.process.send_signal(signal.SIGTERM)
            gateway.process.wait(PATIENCE_S)
            assert time.monotonic() - started < STOPPED_WITH_HUNG_RECEIVERS_S, gateway.log()
            assert response.result().status_code == HTTPStatus.GATEWAY_TIMEOUT
