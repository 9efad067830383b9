from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.requirements import find_program

Tool = Callable[..., str]


@pytest.fixture
def debian_tool() -> Tool:
    """Runs promtool or amtool in the project's root and returns what it prints; it fails the test if the tool fails.

    Without them the test is skipped, or failed when CI=true.
    """

    def run(name: str, *arguments: str | Path) -> str:
        program = find_program(name, packages="prometheus prometheus-alertmanager")
        done = subprocess.run(
            [program, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    return run
