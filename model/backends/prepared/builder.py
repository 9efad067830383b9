"""Build prepared copies atomically, even if the builder is killed or other builders run at the same time."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.backends.onnx import MODEL_FILE, PARALLEL_CORES
from model.backends.prepared.copies import (
    GRAPH,
    RECORD,
    WEIGHTS,
    PreparedCopies,
    PreparedCopy,
    describe_contents,
)
from model.backends.prepared.errors import PreparationFailed, PreparedCopyAbsent, PreparedCopyRejected
from model.backends.prepared.private import (
    make_private_folder,
    map_private_file,
    open_private_folder,
    read_private_file,
    seal_file,
    write_private_file,
)
from model.backends.sessions import NUMPY_TYPES, open_prepared_sessions, open_sessions, write_optimised
from model.errors import DigestMismatch
from model.imaging.input_spec import InputSpec
from model.registry.artefact import read_manifest, read_verified
from storage.folders import lock_folder, sync_folder

KEPT = 3
"""The number of copies to keep: of the model in service, its possible replacement, and its predecessor."""

_TEMPORARY = ".building-"
_MAX_BYTES = 2 << 30  # bytes; more than any graph that the gateway serves


def build_copy(copies: PreparedCopies, artefact: Path, digest: str) -> bool:
    """Build the copy of the graph in `artefact`, whose SHA-256 must be `digest`, unless there is a valid one.

    Returns whether it was built. Removes the unfinished copies of killed builders and, after a build, all but the KEPT
    most recently used copies. Raises PreparationFailed, ArtefactError.
    """
    try:
        make_private_folder(copies.folder)
        with lock_folder(copies.folder):
            _remove_unfinished(copies.folder)
            try:
                copies.open(digest)
            except (PreparedCopyAbsent, PreparedCopyRejected):
                _build(copies, artefact, digest)
                return True
            return False
    except PreparedCopyRejected as error:
        raise PreparationFailed(f"{error}. Remove it, or set MODEL__PREPARED_FOLDER to another folder.") from None
    except OSError as error:
        where = error.filename or copies.folder
        raise PreparationFailed(f"{where}: {error.strerror}. Correct MODEL__PREPARED_FOLDER.") from None


def _build(copies: PreparedCopies, artefact: Path, digest: str) -> None:
    manifest = read_manifest(artefact)
    graph = read_verified(artefact, manifest, MODEL_FILE)
    if manifest.files[MODEL_FILE].sha256 != digest:
        raise DigestMismatch(f"{artefact} has changed. Restart the gateway.")
    name = copies.name_copy(digest)
    temporary = Path(mkdtemp(prefix=_TEMPORARY, dir=copies.folder))  # mode 0700
    try:
        _write(copies, name, graph, temporary, manifest.input_spec)
        _publish(temporary, copies.folder / name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    _remove_old(copies.folder)


def _write(copies: PreparedCopies, name: str, graph: bytes, folder: Path, spec: InputSpec) -> None:
    try:
        write_optimised(graph, folder)
    except Exception as error:  # ONNX Runtime's errors have no common base class
        raise PreparationFailed(f"ONNX Runtime cannot write the optimised graph: {error}") from error
    (folder / WEIGHTS).touch()  # a graph without large weights has no such file
    with open_private_folder(folder) as descriptor:
        seal_file(GRAPH, descriptor)
        seal_file(WEIGHTS, descriptor)
        optimised = read_private_file(GRAPH, descriptor, _MAX_BYTES)
        weights = map_private_file(WEIGHTS, descriptor, _MAX_BYTES)
        _compare(graph, PreparedCopy(optimised, weights), spec)
        files = {GRAPH: describe_contents(optimised), WEIGHTS: describe_contents(weights)}
        write_private_file(RECORD, descriptor, copies.make_record(name, files))
        os.fsync(descriptor)


def _compare(graph: bytes, copy: PreparedCopy, spec: InputSpec) -> None:
    """Raise PreparationFailed unless the outputs of the copy and of the artefact's graph are identical bit for bit."""
    noise = np.random.default_rng(0).integers(0, 256, (1, *spec.shape))
    expected = _run(open_sessions(graph, 1), noise)
    for cores in (1, PARALLEL_CORES):
        actual = _run(open_prepared_sessions(copy, [cores]), noise)
        if not all(map(np.array_equal, expected, actual)):
            raise PreparationFailed(
                "The optimised graph predicts differently, so the artefact's own graph stays in use."
            )


def _run(sessions: list[Any], pixels: NDArray[np.int64]) -> list[NDArray[np.float32]]:
    """Run and free the only session: two open sessions would need a quarter more memory."""
    session = sessions.pop()
    (entry,) = session.get_inputs()
    outputs: list[NDArray[np.float32]] = session.run(None, {entry.name: pixels.astype(NUMPY_TYPES[entry.type])})
    return outputs


def _publish(temporary: Path, final: Path) -> None:
    """Move the complete copy into place, replacing a rejected one."""
    shutil.rmtree(final, ignore_errors=True)
    temporary.rename(final)
    sync_folder(final.parent)


def _remove_unfinished(folder: Path) -> None:
    for path in folder.glob(f"{_TEMPORARY}*"):
        shutil.rmtree(path, ignore_errors=True)


def _remove_old(folder: Path) -> None:
    """Remove all but the most recently used copies. Processes that have opened one keep its pages."""
    copies = sorted(
        (path for path in folder.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime, reverse=True
    )
    for path in copies[KEPT:]:
        shutil.rmtree(path, ignore_errors=True)
