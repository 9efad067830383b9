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
    """A function that runs promtool or amtool in the project's root and returns its output.

    The test fails if the tool fails. Without the tool it is skipped, or fails when CI=true.
    """

    def run(name: str, *arguments: str | Path) -> str:
        program = find_program(name, packages="prometheus prometheus-alertmanager")
        done = subprocess.run(
            [program, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    return run
