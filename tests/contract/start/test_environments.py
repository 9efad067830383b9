"""`make` sets up an environment again that an earlier attempt left incomplete."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.requirements import find_program

ENVIRONMENT = ".venv-mlflow"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the Makefile, lock files without packages, and an environment without pip."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "requirements").mkdir()
    for name in ("build", "mlflow"):
        (tmp_path / f"requirements/{name}.txt").touch()
    venv.create(tmp_path / ENVIRONMENT, with_pip=False, symlinks=True)
    return tmp_path


def make(folder: Path, python: str) -> subprocess.CompletedProcess[str]:
    command = [find_program("make"), f"{ENVIRONMENT}/.server", f"PYTHON={python}"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_an_environment_without_pip_is_made_again(folder: Path) -> None:
    """Debian's Python without python3-venv leaves one; with the package installed, the same command succeeds."""
    made = make(folder, sys.executable)
    assert made.returncode == 0, made.stderr
    version = subprocess.run([folder / ENVIRONMENT / "bin/python", "-m", "pip", "--version"], check=False)
    assert version.returncode == 0


def test_the_error_of_python_is_the_last_one(folder: Path) -> None:
    """Nothing is tried in an environment that could not be made, so the cause is not followed by other errors."""
    failing = folder / "python"
    failing.write_text("#!/bin/sh\necho ensurepip is not available\nexit 1\n")
    failing.chmod(0o755)
    made = make(folder, str(failing))
    assert made.returncode != 0
    assert "ensurepip is not available" in made.stdout
    assert "pip" not in made.stderr
