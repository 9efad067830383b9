"""`make` chooses an optimised Python, compiles the checkout, and repairs an environment that is incomplete."""

from __future__ import annotations

import os
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
SYSTEM_PYTHON = "/usr/bin/python3"


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


@pytest.mark.parametrize("is_optimised", [True, False])
def test_the_system_python_replaces_one_without_optimisations(tmp_path: Path, is_optimised: bool) -> None:
    """The first `python3` on the PATH is used if it was compiled with optimisations, or there is no other."""
    python = tmp_path / "python3"
    options = "--enable-shared --enable-optimizations" if is_optimised else "--enable-shared"
    settings = f"import sysconfig; sysconfig.get_config_vars()['CONFIG_ARGS'] = {options!r}"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{settings}\n$2"\n')
    python.chmod(0o755)
    command = [find_program("make"), "--dry-run", "--always-make", ".venv/.run"]
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    planned = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    expected = SYSTEM_PYTHON if is_supported(SYSTEM_PYTHON) and not is_optimised else "python3"
    assert f'== setting up .venv with {expected}"' in planned.stdout


def is_supported(python: str) -> bool:
    """Whether that Python exists, has a supported version, and can create environments."""
    check = "import ensurepip, sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))"
    return Path(python).exists() and subprocess.run([python, "-c", check], check=False).returncode == 0


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
