"""Rate limits that several processes share, and outages of Redis."""

from __future__ import annotations

import subprocess
import sys

from tests.support.paths import ROOT
from tests.support.redis import Redis


def test_limits_hold_over_processes_and_without_redis(redis_server: Redis) -> None:
    """Four processes allow exactly what one would, and a Redis that hangs or dies does not block the event loop."""
    assert redis_server.url
    command = [sys.executable, "-m", "tests.experiments.limits", "--rounds=1"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
    succeeded = [line for line in run.stdout.splitlines() if line.endswith("ok")]
    assert (run.returncode, len(succeeded)) == (0, 4), run.stdout + run.stderr
