"""`atalaya models reference`: a drift reference for an artefact that has none."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from api.cli import run
from model.drift.files import find_reference
from model.drift.metrics import MEASURES, Metric
from model.imaging.input_spec import InputSpec
from tests.model.backends.tiny_onnx import CLASSES, write_tiny_artefact


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model without a gate."""
    (tmp_path / "model").mkdir()
    return write_tiny_artefact(tmp_path / "model", InputSpec(24, 24))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """20 images of each class, in shades of a colour."""
    for number, name in enumerate(CLASSES):
        (tmp_path / "data" / name).mkdir(parents=True)
        for shade in range(20):
            colour = tuple(10 * shade if channel == number else 30 for channel in range(3))
            Image.new("RGB", (24, 24), colour).save(tmp_path / "data" / name / f"{shade}.png")
    return tmp_path / "data"


def test_the_reference_is_that_of_the_held_out_images(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command prints a reference for the digest of the model, with all measures except the missing gate's score."""
    capsys.readouterr()
    options = ["--data", str(data), "--model", str(model), "--validation", "0.9"]
    assert run(["models", "reference", *options]) == 0
    (tmp_path / "tiny.json").write_text(capsys.readouterr().out)
    digest = json.loads((model / "manifest.json").read_text())["files"]["model.onnx"]["sha256"]
    found = find_reference([tmp_path / "tiny.json"], digest)
    assert found is not None
    assert (found.images, found.classes) == (54, CLASSES)
    assert set(found.measures) == set(MEASURES) - {Metric.GATE_SCORE}
    assert found.measures[Metric.IMAGE_SIZE].mean == 24


@pytest.fixture
def divided(data: Path, tmp_path: Path) -> Path:
    """A data set with a folder of training images and one of validation images."""
    for split in ("train", "validation"):
        shutil.copytree(data, tmp_path / "divided" / split)
    return tmp_path / "divided"


def test_a_folder_of_validation_images_is_used(model: Path, divided: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """If the data set has a folder validation/, the reference is built from all its images and no others."""
    capsys.readouterr()
    assert run(["models", "reference", "--data", str(divided), "--model", str(model)]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 60


def test_a_file_that_is_too_large_is_named(model: Path, divided: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is larger than images may be is not read into memory, and is an error that names it."""
    large = divided / "validation" / CLASSES[0] / "0.png"
    os.truncate(large, 1 << 40)
    capsys.readouterr()
    assert run(["models", "reference", "--data", str(divided), "--model", str(model)]) == 1
    assert f"{large}: The image has {1 << 40} bytes" in capsys.readouterr().err


def test_few_images_are_an_error(model: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Fewer than 50 held-out images are an error that states their number."""
    capsys.readouterr()
    assert run(["models", "reference", "--data", str(data), "--model", str(model)]) == 1
    assert "has only 6 images that were held out; 50 are needed" in capsys.readouterr().err
