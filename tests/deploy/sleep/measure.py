"""Check that an idle gateway sends no packet: `python -m tests.deploy.sleep.measure`, as root.

Runs itself in a network namespace that contains only PostgreSQL, Redis, a receiver of error reports and the gateway.
Counts the packets on the loopback interface while nobody sends a request. Then measures how soon a prediction is
returned by the idle gateway, and by a gateway that a platform has stopped and starts again for the request; that takes
several starts, and is left out with `--starts 0`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import httpx

from tests.support import postgres, redis
from tests.support.gateway import Gateway, make_gateway
from tests.support.paths import FOREST
from tests.support.polling import wait_until
from tests.support.servers.sentry import running_sink

_INSIDE = "ATALAYA_SILENCE"
_CLOSED = {"06", "07", "0A"}  # TIME_WAIT, CLOSE and LISTEN in /proc/net/tcp


def count_packets() -> int:
    """Return how many packets were sent in this network namespace."""
    (line,) = (line for line in Path("/proc/net/dev").read_text().splitlines() if line.strip().startswith("lo:"))
    return int(line.partition(":")[2].split()[9])


def measure(idle_seconds: float, silent_seconds: float, starts: int) -> dict[str, float]:
    """Return the packets that were sent while the gateway was idle, and the seconds until a prediction afterwards.

    `wake_s` is the time of the idle gateway, `start_s` the median of `starts` starts, including that of the process.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="atalaya-sleep-")))
        server = stack.enter_context(postgres.running())
        windows = stack.enter_context(redis.running(folder))
        sink = stack.enter_context(running_sink())
        gateway = make_gateway(
            folder,
            DATABASE_URL=f"{server.url}/postgres",
            REDIS_URL=windows.url,
            SENTRY_DSN=sink.dsn,
            METRICS_PORT="",
            IDLE_SECONDS=str(idle_seconds),
            MODEL__PREPARE="true",
        )
        gateway.prepare_model()
        gateway.start()
        stack.callback(gateway.stop)
        token = gateway.token()
        predict(gateway, token)
        wait_until(lambda: is_idle(gateway), message=gateway.log)
        wait_until(lambda: not list_connections(), message=list_connections)
        wait_until(is_quiet, message="packets are still sent")
        before = count_packets()
        time.sleep(silent_seconds)
        packets = count_packets() - before
        measured = {"packets": packets, "wake_s": predict(gateway, token)}
        if starts:
            measured["start_s"] = median(restart(gateway, token) for _ in range(starts))
        return measured


def restart(gateway: Gateway, token: str) -> float:
    """Stop the gateway; return the seconds from its next start to the end of the first prediction."""
    gateway.stop()
    gateway.start()
    return gateway.ready_s + predict(gateway, token)


def is_idle(gateway: Gateway) -> bool:
    """Whether the gateway has become idle since the last prediction. On a slow machine it may have been idle before."""
    log = gateway.log()
    return log.rfind('"gateway_idle"') > log.rfind('"POST /v1/predictions 200"') > -1


def list_connections() -> list[str]:
    """Return the TCP connections in this network namespace that are not closed yet."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return [line for line in lines if line.split()[3] not in _CLOSED]


def is_quiet() -> bool:
    """Whether no packet is sent for two seconds."""
    before = count_packets()
    time.sleep(2)
    return count_packets() == before


def predict(gateway: Gateway, token: str) -> float:
    """Make a prediction on a new connection; return the seconds that it took."""
    began = time.perf_counter()
    response = httpx.post(
        f"{gateway.base_url}/v1/predictions",
        content=FOREST.read_bytes(),
        headers={"Authorization": f"Bearer {token}"},
        timeout=60,
    )
    response.raise_for_status()
    return time.perf_counter() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--idle", type=float, default=60.0, help="IDLE_SECONDS of the gateway")
    parser.add_argument("--seconds", type=float, default=660.0, help="how long no packet may be sent")
    parser.add_argument("--starts", type=int, default=3, help="how often the gateway is stopped and started again")
    arguments = parser.parse_args()
    if _INSIDE not in os.environ:
        command = ["unshare", "--net", sys.executable, "-m", "tests.deploy.sleep.measure", *sys.argv[1:]]
        return subprocess.run(command, env={**os.environ, _INSIDE: "1"}, check=False).returncode
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    measured = measure(arguments.idle, arguments.seconds, arguments.starts)
    print(json.dumps({name: round(value, 2) for name, value in measured.items()}))
    return 0 if measured["packets"] == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
