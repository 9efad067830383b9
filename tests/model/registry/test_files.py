"""The file registry: immutable versions, aliases that move together, concurrent writers, and crashes at every step."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from model.errors import ArtefactError, DigestMismatch
from model.registry.artefact import read_manifest
from model.registry.errors import (
    AliasMoved,
    AliasUnchanged,
    InvalidName,
    RegistryUnavailable,
    UnknownAlias,
    UnknownModel,
    UnknownVersion,
    VersionExists,
)
from model.registry.files import FileRegistry
from model.signing.errors import ArtefactUnsigned, SignatureInvalid
from model.signing.folder import sign_folder, verify_folder
from tests.model.registry.crashes import FORK, run_until_crash
from tests.model.registry.versions import MODEL
from tests.model.signing.forging import new_key

DECISION: Any = {"who": "cli:olga", "why": "a test"}


def test_an_added_version_is_a_copy_of_the_artefact(registry: FileRegistry, make_artefact: Callable[..., Path]) -> None:
    """Later changes to the source do not affect the registry's copy."""
    source = make_artefact("1.0", b"the graph")
    registry.add(source)
    (source / "model.onnx").write_bytes(b"another")
    folder = registry.find_folder(MODEL, "1.0")
    assert (folder / "model.onnx").read_bytes() == b"the graph"
    assert read_manifest(folder) == read_manifest(source)
    assert registry.list_models() == [MODEL]
    assert list(registry.read(MODEL).versions) == ["1.0"]


def test_a_version_never_changes(registry: FileRegistry, make_artefact: Callable[..., Path]) -> None:
    """The same version cannot be added twice, and a changed manifest is detected."""
    registry.add(make_artefact("1.0"))
    with pytest.raises(VersionExists, match=r"tiny 1\.0 already exists"):
        registry.add(make_artefact("1.0", b"other bytes"))
    folder = registry.find_folder(MODEL, "1.0")
    assert (folder / "model.onnx").read_bytes() == b"a graph"
    document = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**document, "classes": ["forest", "beach"]}))
    with pytest.raises(DigestMismatch):
        registry.find_folder(MODEL, "1.0")


def test_aliases_and_tags_move(registry: FileRegistry, make_artefact: Callable[..., Path]) -> None:
    """Several aliases move in one change, `@alias` refers to a version, and None removes an alias or a tag."""
    for version in ("1.0", "1.1"):
        registry.add(make_artefact(version))
    registry.move_aliases(MODEL, {"production": "1.0"}, **DECISION)
    state = registry.move_aliases(MODEL, {"production": "1.1", "previous": "1.0"}, **DECISION)
    assert state == registry.read(MODEL)
    assert state.aliases == {"production": "1.1", "previous": "1.0"}
    assert state.find("@production").version == "1.1"
    assert state.generation == 4
    registry.tag(MODEL, "1.1", {"stage": "tested", "owner": "maps"})
    tagged = registry.tag(MODEL, "1.1", {"owner": None})
    assert tagged.find("1.1").tags == {"stage": "tested"}
    assert registry.move_aliases(MODEL, {"previous": None}, **DECISION).aliases == {"production": "1.1"}
    assert registry.find_folder(MODEL, "@production").name == "1.1"


def test_an_alias_that_moved_meanwhile_is_not_moved(registry: FileRegistry, make_artefact: Callable[..., Path]) -> None:
    """A move changes nothing if an alias does not point to its expected version."""
    registry.add(make_artefact("1.0"))
    registry.move_aliases(MODEL, {"production": "1.0"}, **DECISION, expected={"production": None})
    before = registry.read(MODEL)
    with pytest.raises(AliasMoved, match=r"'production' points to 1\.0, and not no version"):
        registry.move_aliases(MODEL, {"production": "1.0", "other": "1.0"}, **DECISION, expected={"production": None})
    assert registry.read(MODEL) == before


def test_a_decision_moves_aliases_once(registry: FileRegistry, make_artefact: Callable[..., Path]) -> None:
    """A repeated decision changes nothing, even after the aliases have been moved back."""
    registry.add(make_artefact("1.0"))
    registry.move_aliases(MODEL, {"production": "1.0"}, **DECISION, decision="a verdict")
    undone = registry.move_aliases(MODEL, {"production": None}, **DECISION)
    with pytest.raises(AliasUnchanged, match="has already moved the aliases"):
        registry.move_aliases(MODEL, {"production": "1.0"}, **DECISION, decision="a verdict")
    assert registry.read(MODEL) == undone
    registry.move_aliases(MODEL, {"production": "1.0"}, **DECISION, decision="another verdict")
    assert registry.read(MODEL).aliases == {"production": "1.0"}


def test_names_that_do_not_exist_are_rejected(registry: FileRegistry, make_artefact: Callable[..., Path]) -> None:
    """An unknown model, version or alias raises its own error, and changes nothing."""
    with pytest.raises(UnknownModel):
        registry.read("other")
    with pytest.raises(UnknownModel):
        registry.move_aliases("other", {"production": "1.0"}, **DECISION)
    registry.add(make_artefact("1.0"))
    before = registry.read(MODEL)
    with pytest.raises(UnknownVersion, match=r"1\.0"):
        registry.move_aliases(MODEL, {"production": "2.0"}, **DECISION)
    with pytest.raises(UnknownAlias, match="none"):
        registry.find_folder(MODEL, "@production")
    assert registry.read(MODEL) == before


@pytest.mark.parametrize("name", ["", ".", "..", "../other", "a/b", ".hidden", "-x", "a\0", "a b", "x" * 65, "é"])
def test_a_name_cannot_lead_out_of_the_registry(
    registry: FileRegistry, make_artefact: Callable[..., Path], name: str
) -> None:
    """Every operation rejects a name that is not a valid folder name."""
    registry.add(make_artefact("1.0"))
    uses: tuple[Callable[[], object], ...] = (
        lambda: registry.read(name),
        lambda: registry.move_aliases(name, {}, **DECISION),
        lambda: registry.move_aliases(MODEL, {name: "1.0"}, **DECISION),
        lambda: registry.tag(MODEL, "1.0", {name: "x"}),
    )
    for use in uses:
        with pytest.raises(InvalidName):
            use()
    assert registry.read(MODEL).generation == 1


def test_a_damaged_artefact_is_not_added(registry: FileRegistry, make_artefact: Callable[..., Path]) -> None:
    """A file that differs from its manifest, and a folder without one, leave nothing in the registry."""
    source = make_artefact("1.0")
    (source / "model.onnx").write_bytes(b"A graph")
    with pytest.raises(DigestMismatch):
        registry.add(source)
    (source / "manifest.json").unlink()
    with pytest.raises(ArtefactError):
        registry.add(source)
    assert registry.list_models() == []


def test_a_damaged_state_is_reported(
    registry: FileRegistry, make_artefact: Callable[..., Path], tmp_path: Path
) -> None:
    """A damaged state raises an error instead of being treated as an empty registry."""
    registry.add(make_artefact("1.0"))
    state = tmp_path / "registry" / MODEL / "state.json"
    for damaged in (
        b"",
        b"[]",
        b'{"schema": 2}',
        b"[" * 100_000,
        b'{"schema":1,"generation":1e999,"versions":[],"aliases":{}}',
        state.read_bytes()[:-20],
        b'{"schema":1,"versions":[{}],"aliases":{}}',
    ):
        state.write_bytes(damaged)
        with pytest.raises(RegistryUnavailable, match="damaged"):
            registry.add(make_artefact("1.1"))


def _add(root: Path, folder: Path) -> None:
    FileRegistry(root).add(folder)


def _move_often(root: Path, version: str, count: int) -> None:
    for _ in range(count):
        FileRegistry(root).move_aliases(MODEL, {"production": version, "previous": version}, **DECISION)


def test_two_writers_lose_no_change(make_artefact: Callable[..., Path], tmp_path: Path) -> None:
    """All 100 changes by two processes take effect, and a reader always sees both aliases at the same version."""
    root = tmp_path / "registry"
    registry = FileRegistry(root)
    for version in ("1.0", "1.1"):
        registry.add(make_artefact(version))
    writers = [FORK.Process(target=_move_often, args=(root, version, 50)) for version in ("1.0", "1.1")]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        aliases = registry.read(MODEL).aliases
        assert aliases.get("production") == aliases.get("previous")
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert registry.read(MODEL).generation == 102


def test_a_crash_at_any_step_leaves_the_old_or_the_new_state(
    make_artefact: Callable[..., Path], tmp_path: Path
) -> None:
    """After a crash at any step, the state is the old or the new one, and the next writer can make the change."""
    first, second, third = (make_artefact(version) for version in ("1.0", "1.1", "1.2"))
    outcomes = []
    for step in range(40):
        root = tmp_path / f"registry-{step}"
        registry = FileRegistry(root)
        registry.add(first)
        registry.move_aliases(MODEL, {"production": "1.0"}, **DECISION)
        status = run_until_crash(step, lambda root=root: _add(root, second))  # type: ignore[misc]
        state = registry.read(MODEL)
        outcomes.append((status, list(state.versions)))
        assert state.aliases == {"production": "1.0"}
        if "1.1" not in state.versions:
            registry.add(second)
        registry.add(third)
        assert (registry.find_folder(MODEL, "1.1") / "model.onnx").read_bytes() == b"a graph"
        assert sorted(path.name for path in (root / MODEL / "versions").iterdir()) == ["1.0", "1.1", "1.2"]
    assert (-9, ["1.0"]) in outcomes
    assert (-9, ["1.0", "1.1"]) in outcomes
    assert outcomes[-1] == (0, ["1.0", "1.1"])


def test_what_others_put_into_a_registry_stays(registry: FileRegistry, make_artefact: Callable[..., Path]) -> None:
    """Foreign files and folders next to the versions are kept, and only a folder with a valid name is a model."""
    registry.add(make_artefact("1.0"))
    versions = registry.root / MODEL / "versions"
    (versions / ".DS_Store").write_text("a note")
    shutil.copytree(versions / "1.0", versions / "copy")
    shutil.copytree(registry.root / MODEL, registry.root / "old models")
    registry.move_aliases(MODEL, {"production": "1.0"}, **DECISION)
    registry.add(make_artefact("1.1"))
    assert {path.name for path in versions.iterdir()} == {".DS_Store", "1.0", "1.1", "copy"}
    assert registry.list_models() == [MODEL]


def test_a_registry_stays_readable_for_those_who_could_read_it(
    registry: FileRegistry, make_artefact: Callable[..., Path]
) -> None:
    """New files get the group and the permissions of the registry's folder, regardless of the writer's umask."""
    registry.root.mkdir()
    registry.root.chmod(0o2775)
    group = registry.root.stat().st_gid
    if os.geteuid() == 0:
        group = 4321
        os.chown(registry.root, 1234, group)
    umask = os.umask(0o077)
    try:
        registry.add(make_artefact("1.0"))
        registry.move_aliases(MODEL, {"production": "1.0"}, **DECISION)
        (registry.root / MODEL / "state.json").chmod(0o640)
        registry.move_aliases(MODEL, {"production": None}, **DECISION)
    finally:
        os.umask(umask)
    home = registry.root / MODEL
    found = {path: path.stat() for path in home.rglob("*")}
    modes = {path.name: stat.S_IMODE(each.st_mode) & 0o777 for path, each in found.items()}
    assert {each.st_gid for each in found.values()} == {group}
    assert modes == {
        "versions": 0o775,
        "1.0": 0o775,
        "model.onnx": 0o664,
        "manifest.json": 0o664,
        "state.json": 0o640,
        ".lock": 0o660,
    }


def test_a_version_keeps_its_signature(registry: FileRegistry, make_artefact: Callable[..., Path]) -> None:
    """The signature of an artefact is copied into the registry with it, and verifies there."""
    key, folder = new_key(), make_artefact("1.0")
    sign_folder(folder, key)
    registry.add(folder)
    verified = verify_folder(registry.find_folder(MODEL, "1.0"), key.public_key(), complete=False)
    assert verified.files.keys() == {"manifest.json", "model.onnx"}


def test_an_unsigned_version_is_not_added_where_signatures_are_required(
    registry: FileRegistry, make_artefact: Callable[..., Path]
) -> None:
    """With a key, an artefact that is unsigned or signed with another key is not added."""
    key, folder = new_key(), make_artefact("1.0")
    with pytest.raises(ArtefactUnsigned):
        registry.add(folder, key.public_key())
    sign_folder(folder, new_key())
    with pytest.raises(SignatureInvalid):
        registry.add(folder, key.public_key())
    assert registry.list_models() == []
    sign_folder(folder, key)
    assert registry.add(folder, key.public_key()).version == "1.0"
