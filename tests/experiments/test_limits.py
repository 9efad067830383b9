"""The experiments in limits.py, in their short form."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any


def test_limits_hold_over_processes_and_without_redis(redis_server: Any) -> None:
    """Four processes let through exactly what one would, and a Redis that hangs or dies holds up no event loop."""
    assert redis_server.url
    command = [sys.executable, "-m", "tests.experiments.limits", "--rounds=1"]
    root = Path(__file__).parents[2]
    run = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, timeout=120)
    told = [line for line in run.stdout.splitlines() if line.endswith("ok")]
    assert (run.returncode, len(told)) == (0, 4), run.stdout + run.stderr
