"""References to a registered model in settings, and watching the alias that they name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from model.registry.errors import InvalidName, RegistryUnavailable, UnknownAlias, UnknownModel
from model.registry.files import FileRegistry
from model.registry.reference import ModelReference, parse_reference
from model.registry.state import ModelState, Version, serialise_state
from model.registry.watch import AliasWatch

REFERENCE = ModelReference("tiny", "production")
VERSIONS = {name: Version(name, "00", "2026-11-26T00:00:00+00:00") for name in ("1.0", "1.1")}


def write_state(root: Path, **aliases: str) -> Path:
    """Replace the state as the registry does, without artefacts."""
    home = root / "tiny"
    home.mkdir(exist_ok=True)
    (home / "state.new").write_bytes(serialise_state(ModelState(VERSIONS, aliases)))
    return (home / "state.new").replace(home / "state.json")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("registry://tiny", REFERENCE),
        ("registry://tiny@candidate", ModelReference("tiny", "candidate")),
        ("onnx://artifacts/tiny", None),
        ("registry", None),
    ],
)
def test_a_reference_names_a_model_and_an_alias(url: str, expected: ModelReference | None) -> None:
    """Without an alias, a reference means production; URLs of other schemes are not references."""
    assert parse_reference(url) == expected


@pytest.mark.parametrize("url", ["registry://", "registry://@production", "registry://tiny@", "registry://a/b"])
def test_a_reference_without_a_valid_name_is_an_error(url: str) -> None:
    """A reference whose model or alias is not a valid name is rejected."""
    with pytest.raises(InvalidName):
        parse_reference(url)


def test_a_watch_sees_each_move(tmp_path: Path) -> None:
    """A watch detects moves there and back, although the states have the same size."""
    watch = AliasWatch(FileRegistry(tmp_path), REFERENCE)
    for version in ("1.0", "1.1", "1.0", "1.1"):
        write_state(tmp_path, production=version)
        assert watch.find_version() == version
        assert watch.find_version() == version


def test_a_watch_does_not_read_a_state_that_has_not_changed(tmp_path: Path) -> None:
    """While the state's size and modification time are unchanged, its content, which is damaged here, is not read."""
    watch = AliasWatch(FileRegistry(tmp_path), REFERENCE)
    state = write_state(tmp_path, production="1.0")
    assert watch.find_version() == "1.0"
    stamp = state.stat()
    state.write_bytes(b"x" * stamp.st_size)
    os.utime(state, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert watch.find_version() == "1.0"


def test_a_watch_raises_until_the_registry_can_be_read_again(tmp_path: Path) -> None:
    """A missing model, a missing alias and a damaged state raise an error at each check, until they are repaired."""
    watch = AliasWatch(FileRegistry(tmp_path), REFERENCE)
    for _ in range(2):
        with pytest.raises(UnknownModel):
            watch.find_version()
    state = write_state(tmp_path, candidate="1.0")
    for _ in range(2):
        with pytest.raises(UnknownAlias):
            watch.find_version()
    state.write_bytes(b"{")
    for _ in range(2):
        with pytest.raises(RegistryUnavailable):
            watch.find_version()
    write_state(tmp_path, production="1.1")
    assert watch.find_version() == "1.1"
