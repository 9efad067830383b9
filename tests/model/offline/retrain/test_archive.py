"""The archive for retraining on another machine."""

from __future__ import annotations

import os
from pathlib import Path
from zipfile import ZipFile

import pytest

from model.errors import DatasetError
from model.offline.dataset import list_images
from model.offline.retrain import RetrainOptions
from model.offline.retrain.archive import write_archive


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data set with one image in each split, and a class without any."""
    for split in ("train", "test"):
        for name in ("field", "lake"):
            (tmp_path / "data" / split / name).mkdir(parents=True)
        (tmp_path / "data" / split / "field" / "0.png").touch()
    return tmp_path / "data"


@pytest.fixture
def start(tmp_path: Path) -> Path:
    (tmp_path / "model.keras").touch()
    return tmp_path / "model.keras"


def test_a_class_without_images_is_kept(data: Path, start: Path, tmp_path: Path) -> None:
    """Folders of all classes are packed, files from before 1980 too, and only the owner may read the archive."""
    os.utime(data / "train" / "field" / "0.png", (0, 0))
    write_archive(tmp_path / "retrain.pyz", RetrainOptions(str(data), str(start), ""))
    with ZipFile(tmp_path / "retrain.pyz") as archive:
        archive.extractall(tmp_path / "there")
    assert (tmp_path / "retrain.pyz").stat().st_mode & 0o777 == 0o600
    for split in ("train", "test"):
        assert list_images(tmp_path / "there" / "data" / split).classes == ("field", "lake")


def test_a_failure_leaves_no_file(data: Path, start: Path, tmp_path: Path) -> None:
    """When writing the archive fails, no part of it is left."""
    (data / "test" / "field" / "0.png").unlink()
    with pytest.raises(DatasetError, match="No images"):
        write_archive(tmp_path / "retrain.pyz", RetrainOptions(str(data), str(start), ""))
    assert {path.name for path in tmp_path.iterdir()} == {"data", "model.keras"}
