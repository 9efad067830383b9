"""Measuring an artefact on its golden set."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from model.errors import DatasetError
from model.imaging.input_spec import InputSpec
from model.offline.export.golden import measure_golden_set
from model.offline.fitting.sources import FittingSources
from tests.model.backends.tiny_onnx import CLASSES, write_tiny_artefact


def test_an_image_that_is_too_large_is_named(tmp_path: Path) -> None:
    """A file of the golden set that is larger than images may be is not read, and is an error that names it."""
    (tmp_path / "model").mkdir()
    artefact = write_tiny_artefact(tmp_path / "model", InputSpec(24, 24))
    for name in CLASSES:
        (tmp_path / "data" / name).mkdir(parents=True)
        for shade in range(4):
            Image.new("L", (24, 24), shade).save(tmp_path / "data" / name / f"{shade}.png")
    for path in (tmp_path / "data").rglob("*.png"):
        os.truncate(path, 1 << 40)
    with pytest.raises(DatasetError, match=rf"png: The image has {1 << 40} bytes; the limit is"):
        measure_golden_set(artefact, FittingSources(tmp_path / "data", 0.5, 1))
