"""Tests that import Keras are collected only where it is installed: `make test` runs them in the Keras environment."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path


def _find_modules_with_keras() -> list[str]:
    folder = Path(__file__).parent
    modules = folder.rglob("test_*.py")
    return [str(module.relative_to(folder)) for module in modules if "pytest.mark.keras" in module.read_text()]


collect_ignore = [] if find_spec("keras") else _find_modules_with_keras()
