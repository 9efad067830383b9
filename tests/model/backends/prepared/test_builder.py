"""Building prepared copies: atomically, alongside other builders, and without keeping too many."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from model.backends.prepared.builder import KEPT, build_copy
from model.backends.prepared.copies import GRAPH, RECORD, WEIGHTS, PreparedCopies, derive_key, encode_job
from model.backends.prepared.errors import PreparationFailed, PreparedCopyAbsent
from model.errors import DigestMismatch
from tests.model.backends.prepared.conftest import SPEC, read_digest
from tests.model.backends.tiny_onnx import write_tiny_artefact
from tests.support.polling import PATIENCE_S, wait_until

BUILDER = [sys.executable, "-m", "model.backends.prepared"]


def list_copies(copies: PreparedCopies) -> list[str]:
    return sorted(path.name for path in copies.folder.iterdir() if path.is_dir())


def build_in_child(copies: PreparedCopies, artefact: Path, digest: str) -> subprocess.CompletedProcess[bytes]:
    """Build as the gateway does: in a process with an empty environment."""
    return subprocess.run(BUILDER, input=encode_job(copies, artefact, digest), capture_output=True, check=False, env={})


def test_a_copy_is_built_once(copies: PreparedCopies, artefact: Path, digest: str) -> None:
    """The first build makes a private copy that can be opened; the second build does not change it."""
    assert build_copy(copies, artefact, digest)
    folder = copies.folder / copies.name_copy(digest)
    inode = folder.stat().st_ino
    assert not build_copy(copies, artefact, digest)
    assert folder.stat().st_ino == inode
    assert {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()} == dict.fromkeys(
        (GRAPH, WEIGHTS, RECORD), 0o600
    )
    assert [path.stat().st_mode & 0o777 for path in (folder, copies.folder)] == [0o700, 0o700]
    assert copies.open(digest).graph == (folder / GRAPH).read_bytes()


def test_a_damaged_copy_is_built_again(copies: PreparedCopies, artefact: Path, digest: str) -> None:
    """A build replaces a copy that would be rejected."""
    build_copy(copies, artefact, digest)
    (copies.folder / copies.name_copy(digest) / GRAPH).unlink()
    assert build_copy(copies, artefact, digest)
    assert copies.open(digest).graph


def test_builders_beside_each_other_make_one_copy(copies: PreparedCopies, artefact: Path, digest: str) -> None:
    """Two builders that run at the same time both succeed and leave exactly one copy."""
    job = encode_job(copies, artefact, digest)
    builders = [subprocess.Popen(BUILDER, stdin=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    for builder in builders:
        assert builder.stdin
        builder.stdin.write(job)
        builder.stdin.close()
    errors = [builder.stderr.read() for builder in builders if builder.stderr]
    assert [builder.wait(PATIENCE_S) for builder in builders] == [0, 0], errors
    for builder in builders:
        assert builder.stderr
        builder.stderr.close()
    assert list_copies(copies) == [copies.name_copy(digest)]


@pytest.mark.parametrize("left", [[], [GRAPH], [GRAPH, WEIGHTS], [GRAPH, WEIGHTS, RECORD]])
def test_what_a_killed_builder_left_is_no_copy(
    copies: PreparedCopies, artefact: Path, digest: str, left: list[str]
) -> None:
    """The files of a builder that was killed before it published them are not opened; the next build removes them."""
    build_copy(copies, artefact, digest)
    complete = copies.folder / copies.name_copy(digest)
    unfinished = complete.rename(copies.folder / ".building-killed")
    for name in {GRAPH, WEIGHTS, RECORD}.difference(left):
        (unfinished / name).unlink()
    with pytest.raises(PreparedCopyAbsent):
        copies.open(digest)
    assert build_copy(copies, artefact, digest)
    assert list_copies(copies) == [complete.name]


def test_the_lock_of_a_killed_builder_is_free(copies: PreparedCopies, artefact: Path, digest: str) -> None:
    """A waiting builder proceeds when the builder that holds the lock is killed."""
    program = (
        "import fcntl, os, sys, time; lock = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600);"
        "fcntl.flock(lock, fcntl.LOCK_EX); print('locked', flush=True); time.sleep(600)"
    )
    copies.folder.mkdir(mode=0o700, parents=True)
    holder = subprocess.Popen(
        [sys.executable, "-c", program, copies.folder / ".lock"], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout
    with holder.stdout:
        assert holder.stdout.readline() == "locked\n"
        builder = subprocess.Popen(BUILDER, stdin=subprocess.PIPE)
        assert builder.stdin
        builder.stdin.write(encode_job(copies, artefact, digest))
        builder.stdin.close()
        wait_until(lambda: is_waiting_for_lock(builder.pid))
        assert list_copies(copies) == []
        holder.send_signal(signal.SIGKILL)
        assert builder.wait(PATIENCE_S) == 0
        holder.wait(PATIENCE_S)
    assert list_copies(copies) == [copies.name_copy(digest)]


def is_waiting_for_lock(pid: int) -> bool:
    return f" {pid} " in "".join(line for line in Path("/proc/locks").read_text().splitlines(True) if "->" in line)


def test_copies_that_were_used_longest_ago_are_removed(copies: PreparedCopies, tmp_path: Path) -> None:
    """A build keeps the most recently used copies, whatever their models and keys, and removes the others."""
    names = []
    for number in range(KEPT + 1):
        artefact = tmp_path / str(number)
        artefact.mkdir()
        write_tiny_artefact(artefact, replace(SPEC, width=8 + number))
        built = PreparedCopies(copies.folder, derive_key(f"secret {number}"))
        digest = read_digest(artefact)
        build_copy(built, artefact, digest)
        names.append(built.name_copy(digest))
        os.utime(copies.folder / names[-1], (number, number))
    assert set(list_copies(copies)) == set(names[1:])


def test_an_artefact_that_changed_is_not_prepared(copies: PreparedCopies, artefact: Path) -> None:
    """The builder rejects an artefact whose graph is not the one that the gateway serves."""
    with pytest.raises(DigestMismatch, match="Restart the gateway"):
        build_copy(copies, artefact, "0" * 64)
    assert list_copies(copies) == []


def test_the_child_reports_why_it_failed(copies: PreparedCopies, artefact: Path, digest: str) -> None:
    """If the folder's path is a file, the builder exits with status 1 and a line that names path and setting."""
    copies.folder.parent.mkdir()
    copies.folder.write_text("not a folder")
    done = build_in_child(copies, artefact, digest)
    assert done.returncode == 1
    assert done.stderr.decode().splitlines() == [f"{copies.folder}: File exists. Correct MODEL__PREPARED_FOLDER."]


def test_a_folder_of_others_is_left_alone(copies: PreparedCopies, artefact: Path, digest: str) -> None:
    """The builder rejects a folder to which other users can write, and writes nothing there."""
    copies.folder.mkdir(parents=True)
    copies.folder.chmod(0o777)
    with pytest.raises(PreparationFailed, match="other users have access"):
        build_copy(copies, artefact, digest)
    assert list(copies.folder.iterdir()) == []
