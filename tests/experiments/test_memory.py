"""The short form of the experiment in memory.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CANNOT = 77


def test_images_that_do_not_fit_kill_nothing() -> None:
    """In a memory cgroup of 512 MiB the gateway outlives 48-megapixel images, and answers small ones meanwhile."""
    command = [sys.executable, Path(__file__).with_name("memory.py"), "--seconds=12", "--connections=12", "--json"]
    experiment = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    if experiment.returncode == CANNOT:
        # A container of a build server may be root and still have no cgroups to write to.
        missing = pytest.fail if os.environ.get("CI") == "true" and _has_groups() else pytest.skip
        missing(experiment.stderr.strip())
    assert experiment.returncode == 0, experiment.stderr
    results = json.loads(experiment.stdout)
    assert results["oom_kills"] == 0
    assert results["group_peak_bytes"] < results["limit_bytes"]
    # In so short a time it is chance which kind of JPEG finds room beside a PNG that takes nearly all of it (ADR 0012).
    jpegs = [results["kinds"][kind]["statuses"] for kind in ("48 MP JPEG", "48 MP progressive JPEG")]
    assert sum(statuses.get("200", 0) for statuses in jpegs) > 0


def _has_groups() -> bool:
    return os.geteuid() == 0 and os.access("/sys/fs/cgroup", os.W_OK)
