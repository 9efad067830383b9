"""Restoring a registry from a backup."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from model.registry.copies import RegistryRestore, read_models
from model.registry.errors import RegistryUnavailable
from model.registry.files import FileRegistry
from tests.support.paths import ARTEFACT

NAME = "efficientnetb0"


@pytest.fixture
def restore(tmp_path: Path) -> RegistryRestore:
    """A restore of a model with one version into an empty registry."""
    source = FileRegistry(tmp_path / "source")
    source.add(ARTEFACT)
    (model,) = read_models(source)
    restore = RegistryRestore(FileRegistry(tmp_path / "target"))
    restore.begin({NAME: model.serialise_state().decode()})
    return restore


@pytest.mark.parametrize(
    "name", ["state.json", "versions/9.9/model.onnx", "versions/1.1/..", "versions/1.1/../../x", "../x", "versions"]
)
def test_no_file_leaves_the_folder_of_its_version(restore: RegistryRestore, name: str) -> None:
    """A file that is not in the folder of a version that the backup lists is rejected."""
    with pytest.raises(RegistryUnavailable, match="belongs to no version"):
        restore.write(NAME, name, io.BytesIO(b"x"))


def test_a_model_appears_when_it_is_complete(restore: RegistryRestore) -> None:
    """A registry lists a restored model only after the restore is finished."""
    restore.write(NAME, "versions/1.1/model.onnx", io.BytesIO(b"x"))
    assert restore.registry.list_models() == []
    assert restore.finish() == [NAME]
    assert list(restore.registry.read(NAME).versions) == ["1.1"]


def test_files_are_durable_before_the_model_appears(restore: RegistryRestore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files and folders of a restored model are synced to disk before the state that lists them."""
    synced: list[str] = []
    sync = os.fsync

    def record(descriptor: int) -> None:
        sync(descriptor)
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        synced.append(str(path.relative_to(restore.registry.root)))

    monkeypatch.setattr(os, "fsync", record)
    restore.write(NAME, "versions/1.1/model.onnx", io.BytesIO(b"x"))
    restore.finish()
    folders = [f"{NAME}/versions/1.1", f"{NAME}/versions", NAME, "."]
    assert synced == [f"{NAME}/versions/1.1/model.onnx", *folders, f"{NAME}/.state.json.new", NAME]
