"""Adding versions to a file registry in which others have created, or are creating, files and folders."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from model.registry.files import FileRegistry
from tests.model.registry.versions import MODEL


@pytest.mark.parametrize("is_link", [False, True], ids=["folder", "link"])
def test_what_is_in_the_way_of_a_version_is_set_aside(
    registry: FileRegistry, make_artefact: Callable[..., Path], tmp_path: Path, is_link: bool
) -> None:
    """An unlisted folder or link with the version's name is moved aside, and removed when another version is added."""
    registry.add(make_artefact("1.0"))
    versions, elsewhere = registry.root / MODEL / "versions", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "notes").write_text("mine")
    if is_link:
        (versions / "1.1").symlink_to(elsewhere)
    else:
        shutil.copytree(elsewhere, versions / "1.1")
    registry.add(make_artefact("1.1"))
    assert (registry.find_folder(MODEL, "1.1") / "model.onnx").read_bytes() == b"a graph"
    (aside,) = versions.glob(".incoming-*/1.1")
    assert (aside / "notes").read_text() == "mine"
    registry.add(make_artefact("1.2"))
    assert {path.name for path in versions.iterdir()} == {"1.0", "1.1", "1.2"}
    assert (elsewhere / "notes").exists()


def test_two_first_versions_can_be_added_at_once(
    registry: FileRegistry, make_artefact: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer adds its version although another one creates the model's folder at the same time."""
    make = Path.mkdir

    def make_late(path: Path, *arguments: Any, **options: Any) -> None:
        if path.parent == registry.root:
            make(path)
        make(path, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", make_late)
    registry.add(make_artefact("1.0"))
    assert registry.list_models() == [MODEL]
