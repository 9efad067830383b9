"""Prepared copies of a model that someone else has made or changed are not opened: T51."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from model.backends.base import Origin
from model.backends.onnx import MODEL_FILE, OnnxBackend
from model.backends.prepared.builder import build_copy
from model.backends.prepared.copies import (
    GRAPH,
    RECORD,
    WEIGHTS,
    PreparedCopies,
    derive_key,
    describe_contents,
    encode_job,
)
from model.imaging.input_spec import InputSpec
from model.registry.artefact import read_manifest
from tests.model.backends.tiny_onnx import write_tiny_artefact
from tests.model.signing.forging import flip_a_bit

KEY = derive_key("the gateway's secret")
Change = Callable[[Path], object]


@pytest.fixture
def artefact(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny"
    folder.mkdir()
    return write_tiny_artefact(folder, InputSpec(8, 8))


def read_digest(artefact: Path) -> str:
    return read_manifest(artefact).files[MODEL_FILE].sha256


@pytest.fixture
def prepared(artefact: Path, tmp_path: Path) -> Path:
    """The folder of the valid copy of `artefact`."""
    copies = PreparedCopies(tmp_path / "prepared", KEY)
    build_copy(copies, artefact, read_digest(artefact))
    return copies.folder / copies.name_copy(read_digest(artefact))


def replace_with_link(path: Path) -> None:
    """Move the file, and replace it with a link: the owner of the target could change the file later."""
    path.symlink_to(path.rename(path.parent.parent / path.name))


def replace_with_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def forge_record(folder: Path) -> None:
    """Swap the graph for another, and write a record for it with another key."""
    flip_a_bit(folder / GRAPH)
    forger = PreparedCopies(folder.parent, derive_key("a guess"))
    files = {name: describe_contents((folder / name).read_bytes()) for name in (GRAPH, WEIGHTS)}
    (folder / RECORD).write_bytes(forger.make_record(folder.name, files))


def drop_mac(folder: Path) -> None:
    document = json.loads((folder / RECORD).read_bytes())
    (folder / RECORD).write_text(json.dumps({**document, "mac": ""}))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param(lambda folder: flip_a_bit(folder / GRAPH), "graph.onnx differs", id="graph"),
        pytest.param(lambda folder: (folder / WEIGHTS).write_bytes(b"x"), "not a regular file", id="longer"),
        pytest.param(lambda folder: os.truncate(folder / GRAPH, 9), "graph.onnx differs", id="shorter"),
        pytest.param(lambda folder: (folder / WEIGHTS).unlink(), "weights.bin is missing", id="absent"),
        pytest.param(lambda folder: (folder / RECORD).write_text("{}"), "not a record", id="empty-record"),
        pytest.param(lambda folder: (folder / RECORD).write_text("é["), "not a record", id="no-json"),
        pytest.param(forge_record, "not written with this gateway's key", id="forged"),
        pytest.param(drop_mac, "not written with this gateway's key", id="no-mac"),
        pytest.param(lambda folder: replace_with_link(folder / WEIGHTS), "weights.bin", id="link"),
        pytest.param(lambda folder: replace_with_pipe(folder / GRAPH), "not a regular file", id="pipe"),
        pytest.param(
            lambda folder: os.link(folder / GRAPH, folder.parent / "kept"), "not a regular file", id="hard-link"
        ),
        pytest.param(replace_with_link, "Not a directory", id="linked-folder"),
        pytest.param(lambda folder: folder.chmod(0o750), "other users have access", id="group-readable"),
        pytest.param(lambda folder: folder.parent.chmod(0o701), "other users have access", id="parent"),
        pytest.param(lambda folder: (folder / GRAPH).chmod(0o666), "other users have access", id="writable-file"),
    ],
)
def test_a_changed_copy_is_not_opened(artefact: Path, prepared: Path, change: Change, reason: str) -> None:
    """A copy that was changed, linked, forged or opened to other users is rejected; the artefact is served instead."""
    change(prepared)
    with closing(OnnxBackend(artefact, 1, PreparedCopies(prepared.parent, KEY))) as backend:
        assert backend.weights is not None
        assert backend.weights.origin is Origin.REJECTED
        assert reason in backend.weights.reason
        assert backend.predict(np.zeros((1, 8, 8, 3), np.uint8)).shape == (1, 3)


def test_a_copy_of_another_user_is_not_opened(artefact: Path, prepared: Path) -> None:
    """Copies in a folder that belongs to another user are rejected, whatever its mode."""
    folder = prepared.parent
    if os.geteuid() == 0:
        os.chown(folder, 12345, 12345)
    else:
        folder = Path("/usr")
    with closing(OnnxBackend(artefact, 1, PreparedCopies(folder, KEY))) as backend:
        assert backend.weights is not None
        assert backend.weights.reason == f"{folder} belongs to another user"


def test_the_copy_of_another_model_is_not_opened(artefact: Path, prepared: Path, tmp_path: Path) -> None:
    """An authentic copy of another model is rejected under this model's name."""
    (tmp_path / "other").mkdir()
    other = write_tiny_artefact(tmp_path / "other", InputSpec(16, 8))
    copies = PreparedCopies(prepared.parent, KEY)
    build_copy(copies, other, read_digest(other))
    for name in (GRAPH, WEIGHTS, RECORD):
        (copies.folder / copies.name_copy(read_digest(other)) / name).replace(prepared / name)
    with closing(OnnxBackend(artefact, 1, copies)) as backend:
        assert backend.weights is not None
        assert "not written with this gateway's key" in backend.weights.reason


def test_the_builder_gets_no_secret(artefact: Path) -> None:
    """The process that builds a copy gets a derived key, and not the secret that the key is derived from."""
    secret = "MC4CAQAwBQYDK2VwBCIEIA"
    job = encode_job(PreparedCopies(Path("prepared"), derive_key(secret)), artefact, "0" * 64)
    assert set(json.loads(job)) == {"folder", "artefact", "digest", "key"}
    assert secret.encode() not in job
    assert secret.encode().hex().encode() not in job
