"""`make` compiles the checkout, and repairs an environment that an earlier attempt left incomplete."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from importlib.util import cache_from_source
from pathlib import Path

import pytest

from tests.contract.start.checkout import Checkout
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


def test_the_checkout_is_compiled_with_its_environment(checkout: Checkout) -> None:
    """`make` compiles all modules of the gateway, even if PYTHONDONTWRITEBYTECODE is set."""
    for cache in list(checkout.folder.glob("[a-z]*/**/__pycache__")):
        shutil.rmtree(cache)
    planned = checkout.run("make", "--dry-run", "--always-make", ".venv/.run")
    assert "-m compileall" in planned.stdout
    made = checkout.run("make", ".bytecode", changes={"PYTHONDONTWRITEBYTECODE": "1"})
    assert (made.returncode, made.stdout) == (0, ""), made.stderr
    modules = [path for path in checkout.folder.glob("*/**/*.py") if (path.parent / "__init__.py").exists()]
    assert len(modules) > 400
    assert [path for path in modules if not Path(cache_from_source(str(path))).exists()] == []


def test_an_environment_without_pip_is_made_again(folder: Path) -> None:
    """`make` rebuilds an environment without pip, such as Debian's Python creates without the package python3-venv."""
    made = make(folder, sys.executable)
    assert made.returncode == 0, made.stderr
    version = subprocess.run([folder / ENVIRONMENT / "bin/python", "-m", "pip", "--version"], check=False)
    assert version.returncode == 0


def test_the_error_of_python_is_the_last_one(folder: Path) -> None:
    """`make` stops if it cannot create the environment, so that no further errors follow the cause."""
    failing = folder / "python"
    failing.write_text("#!/bin/sh\necho ensurepip is not available\nexit 1\n")
    failing.chmod(0o755)
    made = make(folder, str(failing))
    assert made.returncode != 0
    assert "ensurepip is not available" in made.stdout
    assert "pip" not in made.stderr
