"""An empty registry in a folder, and artefacts to add to it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from model.registry.files import FileRegistry
from tests.model.registry.versions import write_version


@pytest.fixture
def registry(tmp_path: Path) -> FileRegistry:
    return FileRegistry(tmp_path / "registry")


@pytest.fixture
def make_artefact(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes the artefact of a version."""
    return partial(write_version, tmp_path)
