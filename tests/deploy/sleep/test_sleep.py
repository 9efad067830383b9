"""An idle gateway sends no packets, so that a platform can put it to sleep."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.support.paths import ROOT
from tests.support.requirements import find_program, missing

pytestmark = pytest.mark.long


def test_an_idle_gateway_sends_no_packet() -> None:
    """With PostgreSQL, Redis and Sentry, an idle gateway sends no packet for half a minute, and then responds."""
    find_program("unshare", "util-linux")
    find_program("ip", "iproute2")
    if os.geteuid() != 0:
        missing("a network namespace needs root")
    options = ["--idle", "2", "--seconds", "30", "--starts", "0"]
    command = [sys.executable, "-m", "tests.deploy.sleep.measure", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["packets"] == 0
