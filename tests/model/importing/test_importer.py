"""Importing a model file: the conversion, its limits, and what happens to its result."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from model.errors import ImportFailed, ImportLimitExceeded, UnsafeModelFile
from model.importing.importer import ImportOptions, import_model
from model.importing.sandbox import Limits
from tests.model.importing.model_files import dense, model, write_keras
from tests.support.paths import ARTEFACT
from tests.support.requirements import missing

# A conversion writes the files that the manifest lists, and signs nothing.
FILES = ("manifest.json", "model.onnx", "model.keras", "head.npz", "MODEL_CARD.md")
CONVERT = f"mkdir artefact && cp {' '.join(str(ARTEFACT / name) for name in FILES)} artefact"
THIS_INTERPRETER = Path(sys.executable)


@pytest.fixture
def options(tmp_path: Path) -> ImportOptions:
    """Options to import a harmless file to the folder `artefact`."""
    (tmp_path / "files").mkdir()
    file = write_keras(tmp_path / "files" / "model.keras", model(dense()))
    return ImportOptions(file, tmp_path / "out" / "artefact", "efficientnetb0", "1.1")


def make_converter(folder: Path, script: str) -> Path:
    """A stand-in for the interpreter: runs a shell script in the conversion's folder, without a sandbox."""
    program = folder / "python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return program


def test_artefact_appears_complete(options: ImportOptions, tmp_path: Path) -> None:
    """The import moves the artefact of the conversion into place, and leaves nothing else behind."""
    python = make_converter(tmp_path, CONVERT)
    manifest = import_model(options, python)
    assert manifest.full_name == "efficientnetb0-v1.1"
    assert (options.out / "model.onnx").read_bytes() == (ARTEFACT / "model.onnx").read_bytes()
    assert list(options.out.parent.iterdir()) == [options.out]


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (f"{CONVERT} && ln -sf /etc/passwd artefact/model.onnx", "'model.onnx', which is no part"),
        (f"{CONVERT} && touch artefact/sitecustomize.py", "'sitecustomize.py', which is no part"),
        (f"{CONVERT} && echo >> artefact/model.onnx", "no complete artefact"),
        (f"{CONVERT} && sed -i s/efficientnetb0/other/ artefact/manifest.json", "another name"),
        ("ln -s /etc artefact", "no part of an artefact|no complete artefact"),
        ("true", "no complete artefact"),
        ("echo 'error: it cannot be served' && exit 1", "^it cannot be served$"),
        ("kill -SEGV $$", "ended by signal 11"),
    ],
    ids=["link", "other_file", "changed_file", "other_name", "linked_folder", "nothing", "failure", "crash"],
)
def test_nothing_remains_of_a_failed_conversion(
    script: str, reason: str, options: ImportOptions, tmp_path: Path
) -> None:
    """If the conversion fails, or its artefact has links, other or changed files or another name, nothing remains."""
    with pytest.raises(ImportFailed, match=reason):
        import_model(options, make_converter(tmp_path, script))
    assert list(options.out.parent.iterdir()) == []


def test_sandbox_without_keras_fails_with_the_reason(options: ImportOptions) -> None:
    """The real sandbox starts the conversion, which fails without TensorFlow."""
    if find_spec("tensorflow") is not None:
        missing("TensorFlow is installed here")
    with pytest.raises(ImportFailed, match="No module named 'tensorflow'"):
        import_model(options, THIS_INTERPRETER)
    assert list(options.out.parent.iterdir()) == []


def test_limits_apply_to_the_conversion(options: ImportOptions) -> None:
    """A conversion that exceeds its limits is terminated, and leaves nothing behind."""
    with pytest.raises(ImportLimitExceeded):
        import_model(options, THIS_INTERPRETER, Limits(file_bytes=1, cpu_seconds=0))
    assert list(options.out.parent.iterdir()) == []


def test_existing_artefact_is_not_replaced(options: ImportOptions) -> None:
    """The import fails if the folder exists, and leaves it unchanged."""
    options.out.mkdir(parents=True)
    with pytest.raises(ImportFailed, match="already exists"):
        import_model(options, THIS_INTERPRETER)
    assert list(options.out.iterdir()) == []


def test_a_named_pipe_is_not_waited_for(tmp_path: Path) -> None:
    """A named pipe is rejected at once, although no process writes to it."""
    pipe = tmp_path / "model.keras"
    os.mkfifo(pipe)
    with pytest.raises(UnsafeModelFile, match="is not a file of at most"):
        import_model(ImportOptions(pipe, tmp_path / "out", "model", "1"), THIS_INTERPRETER)


@pytest.mark.parametrize("name", ["damaged.keras", "text.keras", "text.h5", "text.txt"])
def test_messages_name_the_imported_file(name: str, tmp_path: Path) -> None:
    """The reason why a file is rejected names that file, not the copy that is checked."""
    file = tmp_path / name
    file.write_bytes(b"PK\x03\x04" if name == "damaged.keras" else b"text")
    with pytest.raises(UnsafeModelFile) as refusal:
        import_model(ImportOptions(file, tmp_path / "out", "model", "1"), THIS_INTERPRETER)
    assert str(refusal.value).startswith(f"{file} is ")


def test_device_is_not_read(tmp_path: Path) -> None:
    """Only regular files are imported: a link to a device is rejected."""
    file = tmp_path / "model.keras"
    file.symlink_to("/dev/zero")
    with pytest.raises(UnsafeModelFile, match="is not a file of at most"):
        import_model(ImportOptions(file, tmp_path / "out", "model", "1"), THIS_INTERPRETER)
    assert list(tmp_path.iterdir()) == [file]
