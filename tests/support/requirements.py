"""Skip or fail tests whose requirements this machine does not meet."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest


def missing(reason: str) -> NoReturn:
    """Skip the running test; fail it if CI=true, because a build server must not skip tests."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def find_program(name: str, packages: str | None = None) -> str:
    """Return the path of a program; without it the test is skipped, or fails if CI=true.

    `packages` are the Debian packages that install it, if their names differ from the program's.
    """
    path = shutil.which(name)
    if path is None:
        missing(f"{name} is not installed: apt-get install {packages or name}")
    return path


def install_npm_packages(folder: Path, *files: Path) -> None:
    """Copy `files` into a folder, and install the packages of their lock file there; no install script runs."""
    npm = find_program("npm", packages="nodejs npm")
    for file in files:
        shutil.copy(file, folder)
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    install = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=900)
    if install.returncode:
        missing(f"npm ci failed: {install.stderr[-500:]}")
