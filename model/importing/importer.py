"""Import a model file: check it, convert it in the sandbox, and move the artefact into place."""

from __future__ import annotations

import json
import os
import stat
import tempfile
from pathlib import Path

from msgspec import Struct
from msgspec.structs import asdict

from model.errors import ArtefactError, ImportFailed, UnsafeModelFile
from model.importing.check import MAX_BYTES, check_model_file
from model.importing.sandbox import Limits
from model.importing.sandbox.run import run_confined
from model.offline.export import ExportOptions
from model.offline.keras_process import find_interpreter
from model.registry.artefact import MANIFEST, Manifest, read_manifest, read_verified

_CONVERSION = "model.offline.export.confined"
# The files that training wrote with the model: class names and input, and the model card.
_COMPANIONS = ("metrics.json", "MODEL_CARD.md")
_MAX_COMPANION_BYTES = 4 << 20
_ARTEFACT_FILES = {"model.keras", "model.onnx", "head.npz", "MODEL_CARD.md"}


class ImportOptions(Struct, frozen=True):
    """The file to import, and the artefact to create. `data` contains labelled images that were not used in training.

    `images`, `photographs` and `other_scenes` are as in ExportOptions.
    """

    file: Path
    out: Path
    name: str
    version: str
    images: Path | None = None
    data: Path | None = None
    photographs: Path | None = None
    other_scenes: Path | None = None


DEFAULT_LIMITS = Limits()


def import_model(options: ImportOptions, python: Path | None = None, limits: Limits = DEFAULT_LIMITS) -> Manifest:
    """Create the artefact folder `options.out` from an untrusted `.keras` or `.h5` file.

    The folder is created completely or not at all. `python` is the interpreter of the Keras environment; see
    `choose_interpreter` for the default. Raises UnsafeModelFile, ImportFailed, ImportLimitExceeded,
    SandboxUnavailable, KerasMissing.
    """
    out = options.out.absolute()
    if out.exists():
        raise ImportFailed(f"{out} already exists. Choose another folder or another version.")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
        source, work = Path(scratch) / "in", Path(scratch) / "work"
        source.mkdir()
        work.mkdir()
        # Check and convert a copy, so that the file cannot change in between.
        file = _copy(options.file, source / f"model{options.file.suffix}", MAX_BYTES)
        check_model_file(file, options.file)
        interpreter = find_interpreter(python)
        for name in _COMPANIONS:
            if options.file.with_name(name).is_file():
                _copy(options.file.with_name(name), source / name, _MAX_COMPANION_BYTES)
        run_confined(
            _CONVERSION,
            json.dumps(asdict(_describe_export(options, file, work / "artefact"))),
            python=interpreter,
            readable=[source, *_list_folders(options)],
            writable=work,
            limits=limits,
        )
        manifest = _check_artefact(work / "artefact", options)
        (work / "artefact").rename(out)
    return manifest


def _describe_export(options: ImportOptions, file: Path, out: Path) -> ExportOptions:
    def resolve(folder: Path | None) -> str | None:
        return None if folder is None else str(folder.resolve())

    return ExportOptions(
        model=str(file),
        out=str(out),
        name=options.name,
        version=options.version,
        images=resolve(options.images),
        data=resolve(options.data),
        photographs=resolve(options.photographs),
        other_scenes=resolve(options.other_scenes),
        held_out=True,
    )


def _list_folders(options: ImportOptions) -> list[Path]:
    folders = (options.images, options.data, options.photographs, options.other_scenes)
    return [folder for folder in folders if folder is not None]


def _copy(source: Path, target: Path, limit: int) -> Path:
    """Copy a regular file of at most `limit` bytes, which may grow meanwhile. Raises UnsafeModelFile for any other."""
    try:
        with open(source, "rb", opener=_open_without_waiting) as original, target.open("wb") as copy:
            regular = stat.S_ISREG(os.fstat(original.fileno()).st_mode)
            copied = 0
            while regular and copied <= limit and (block := original.read(1 << 20)):
                copied += copy.write(block)
    except OSError as error:
        raise UnsafeModelFile(f"{source} cannot be read: {error.strerror}.") from error
    if not regular or copied > limit:
        raise UnsafeModelFile(f"{source} is not a file of at most {limit} bytes.")
    return target


def _open_without_waiting(path: str, flags: int) -> int:
    """Open the file; a named pipe without a writer is opened at once, too."""
    return os.open(path, flags | os.O_NONBLOCK)


def _check_artefact(folder: Path, options: ImportOptions) -> Manifest:
    """Check the sandbox's output: only regular files with known names, and the digests of the manifest."""
    try:
        for path in folder.iterdir():
            if path.name not in {*_ARTEFACT_FILES, MANIFEST} or not stat.S_ISREG(path.lstat().st_mode):
                raise ImportFailed(f"The conversion wrote {path.name!a}, which is no part of an artefact.")
        manifest = read_manifest(folder)
        if (manifest.name, manifest.version) != (options.name, options.version):
            raise ImportFailed("The conversion wrote an artefact of another name or version.")
        for name in manifest.files:
            read_verified(folder, manifest, name)
    except (OSError, ArtefactError) as error:
        raise ImportFailed("The conversion wrote no complete artefact. Import the file again.") from error
    return manifest
