"""Log-ins while attackers keep the gateway busy with hashing passwords."""

from __future__ import annotations

import subprocess
import sys

from tests.support.paths import ROOT


def test_the_experiment_reports_each_attack() -> None:
    """Each attack gets a line with the logins of the other users, and the exit status is 0 as all of these succeed."""
    command = [sys.executable, "-m", "tests.experiments.logins", "--seconds=1"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
    succeeded = [line for line in run.stdout.splitlines() if line.endswith("ok")]
    assert (run.returncode, len(succeeded)) == (0, 3), run.stdout + run.stderr
