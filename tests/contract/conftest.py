from __future__ import annotations

import os
import shutil
from collections.abc import Callable

import pytest


@pytest.fixture
def debian_tool() -> Callable[[str], str]:
    """Finds a program of Debian's packages by name; without it the test is skipped, or failed in CI."""

    def find(name: str) -> str:
        path = shutil.which(name)
        if path is None:
            reason = f"{name} is not installed; apt-get install prometheus prometheus-alertmanager brings it"
            (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
        return path

    return find
