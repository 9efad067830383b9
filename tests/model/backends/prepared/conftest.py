"""A tiny model to prepare copies of, and an empty set of copies."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.backends.onnx import MODEL_FILE
from model.backends.prepared.copies import PreparedCopies, derive_key
from model.imaging.input_spec import InputSpec
from model.registry.artefact import read_manifest
from tests.model.backends.tiny_onnx import write_tiny_artefact

SPEC = InputSpec(8, 8)


@pytest.fixture
def artefact(tmp_path: Path) -> Path:
    """A classifier of a few hundred bytes."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    return write_tiny_artefact(folder, SPEC)


@pytest.fixture
def digest(artefact: Path) -> str:
    return read_digest(artefact)


def read_digest(artefact: Path) -> str:
    return read_manifest(artefact).files[MODEL_FILE].sha256


@pytest.fixture
def copies(tmp_path: Path) -> PreparedCopies:
    """An empty set of copies, whose folder does not exist."""
    return PreparedCopies(tmp_path / "var" / "prepared", derive_key("secret"))
