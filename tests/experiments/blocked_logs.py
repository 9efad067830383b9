"""Run a gateway whose standard output and standard error are pipes that nobody reads.

    python -m tests.experiments.blocked_logs [--seconds 20] [--connections 8]

Exit status 0 if the gateway served predictions and /livez throughout, counted the log lines that it dropped, and
ended within 10 s of SIGTERM with status 0; 1 otherwise.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.load import LoadResults, build_request, drive
from tests.experiments.hostile_images import MAX_SHUTDOWN_S, measure_livez_s
from tests.support.gateway import Gateway, make_gateway
from tests.support.paths import FOREST
from tests.support.polling import wait_until

# A gateway that waits for the reader never responds again; a busy machine delays a response by less than this.
MAX_LIVEZ_S = 2.0


@dataclass(frozen=True)
class Results:
    """The results of one run."""

    load: LoadResults
    livez_s: float
    dropped_lines: float
    shutdown_s: float
    exit_status: int

    def failures(self) -> list[str]:
        found = {
            f"statuses {dict(self.load.statuses)}": set(self.load.statuses) != {200} or self.load.interrupted > 0,
            f"/livez took {self.livez_s:.1f} s": self.livez_s > MAX_LIVEZ_S,
            "no dropped line was counted": self.dropped_lines == 0,
            f"the shutdown took {self.shutdown_s:.1f} s": self.shutdown_s > MAX_SHUTDOWN_S,
            f"the gateway ended with status {self.exit_status}": self.exit_status != 0,
        }
        return [failure for failure, is_true in found.items() if is_true]


@contextmanager
def gateway_without_reader(folder: Path, **changes: str) -> Iterator[Gateway]:
    """Run a gateway that writes its log to a pipe that nobody reads."""
    gateway = make_gateway(folder, LIMITS__PREDICT="10000000/minute", LOG_LEVEL="debug", **changes)
    gateway.started = subprocess.Popen(
        gateway.command, cwd=folder, env=gateway.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        wait_until(gateway.is_ready)
        yield gateway
    finally:
        if gateway.is_running:
            gateway.kill()
        assert gateway.process.stdout is not None
        gateway.process.stdout.close()


async def load(gateway: Gateway, connections: int, seconds: float) -> tuple[LoadResults, float]:
    """Send predictions, and requests for public keys to fill the log; return the predictions and the slowest /livez."""
    request, until = build_request(gateway.token(), FOREST), time.monotonic() + seconds
    predictions, _, livez_s = await asyncio.gather(
        drive(gateway.port, request, connections, seconds),
        drive(gateway.port, b"GET /.well-known/jwks.json HTTP/1.1\r\nHost: localhost\r\n\r\n", connections, seconds),
        measure_livez_s(gateway, until),
    )
    return predictions, livez_s


def run(seconds: float, connections: int) -> Results:
    with (
        tempfile.TemporaryDirectory(prefix="atalaya-logs-") as folder,
        gateway_without_reader(Path(folder)) as gateway,
    ):
        results, livez_s = asyncio.run(load(gateway, connections, seconds))
        dropped_lines = gateway.metric('atalaya_log_lines_dropped_total{output="standard"}')
        began = time.monotonic()
        exit_status = gateway.stop()
        return Results(results, livez_s, dropped_lines, time.monotonic() - began, exit_status)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--connections", type=int, default=8)
    options = parser.parse_args()
    results = run(options.seconds, options.connections)
    print(f"responses {dict(results.load.statuses)}; {results.dropped_lines:.0f} log lines dropped")
    print(f"/livez: {results.livez_s * 1000:.0f} ms at most")
    print(f"SIGTERM: exit status {results.exit_status} after {results.shutdown_s:.1f} s")
    failures = results.failures()
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
