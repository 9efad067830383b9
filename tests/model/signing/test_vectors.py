"""The vectors of the specification's conformance suite for signatures with keys (see vectors/README.md)."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from model.errors import ArtefactError
from model.registry.artefact import SIGNATURE
from model.signing.bundle import verify_bundle
from model.signing.errors import ArtefactChanged, SignatureInvalid
from model.signing.folder import verify_folder
from model.signing.keys import read_public_key
from model.signing.statement import parse_statement
from tests.model.signing.forging import Change, change_bundle, new_key, write_files

VECTORS = Path(__file__).parent / "vectors"
KEY = read_public_key((VECTORS / "signing-key-pub.pem").read_text())
SIMPLE = {"signme-1": b"signme-1\n", "signme-2": b"signme-2"}
MODELS: Mapping[str, Mapping[str, bytes]] = {
    "key-simple": SIMPLE,
    "key-simple-go": SIMPLE,
    "historical-v1.0.1": SIMPLE,
    "historical-v1.1.0": SIMPLE,
    "key-single-file": {"model.bin": b"\xef" * 256},
    "key-multi-file": {
        "config.json": b'{"model": "test", "version": "1.0"}',
        "subdir/adapter.bin": b"\xcd" * 512,
        "weights.bin": b"\xab" * 1024,
    },
}


def write_model(folder: Path, vector: str) -> Path:
    shutil.copy(VECTORS / f"{vector}.sig", folder / SIGNATURE)
    return write_files(folder, MODELS[vector])


def set_member(path: str, value: Any) -> Change:
    """Return a change that sets one member of the bundle, given by its dotted path."""

    def change(bundle: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        for parent in parents:
            bundle = bundle[parent]
        bundle[last] = value

    return change


@pytest.mark.parametrize("vector", MODELS)
def test_folders_that_others_have_signed_verify(tmp_path: Path, vector: str) -> None:
    """The bundles of the suite, of a Go implementation and of earlier releases verify with their model."""
    assert verify_folder(write_model(tmp_path, vector), KEY).files.keys() == MODELS[vector].keys()


@pytest.mark.parametrize("vector", ["historical-v0.3.1", "historical-v1.0.0"])
def test_bundles_of_single_files_verify(vector: str) -> None:
    """Bundles of early releases, which sign one file under the name `.`, verify with their key."""
    statement = parse_statement(verify_bundle((VECTORS / f"{vector}.sig").read_bytes(), KEY))
    assert statement.files == {".": "bc9a717db6064a32cbe9eae6fc40651dd6d36ef1757183f590eff2b1765d7ebc"}


def test_paths_that_the_signer_ignored_may_exist(tmp_path: Path) -> None:
    """A file that the signed statement ignores may exist next to the signed ones (key-ignore-paths)."""
    write_files(write_model(tmp_path, "key-simple"), {"ignore-me": b"anything"})
    assert "ignore-me" not in verify_folder(tmp_path, KEY).files


def test_changed_missing_and_extra_files_fail(tmp_path: Path) -> None:
    """The suite's negative cases: changed contents, a missing file and an extra file each fail, and are named."""
    folder = write_model(tmp_path, "key-simple")
    write_files(folder, {"injected.bin": b"injected after signing\n"})
    with pytest.raises(ArtefactChanged, match=r"injected.bin in .* is not signed"):
        verify_folder(folder, KEY)
    (folder / "injected.bin").unlink()
    write_files(folder, {"signme-1": b"TAMPERED CONTENT\n"})
    with pytest.raises(ArtefactChanged, match=r"signme-1 in .* is not as it was signed"):
        verify_folder(folder, KEY)
    (folder / "signme-1").unlink()
    with pytest.raises(ArtefactChanged, match=r"signme-1 in .* is missing"):
        verify_folder(folder, KEY)


def test_another_key_fails(tmp_path: Path) -> None:
    """A bundle does not verify with a key that has not signed it (key-simple-wrong-key_fail)."""
    with pytest.raises(SignatureInvalid, match="Another key"):
        verify_folder(write_model(tmp_path, "key-simple"), new_key().public_key())


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("mediaType", "application/json"),
        ("dsseEnvelope.payloadType", "application/octet-stream"),
        ("dsseEnvelope.payload", "e30="),
        ("dsseEnvelope.signatures", []),
        ("verificationMaterial", {"certificate": {"rawBytes": "AA=="}, "tlogEntries": []}),
        ("dsseEnvelope", None),
    ],
)
def test_mutated_bundles_fail(tmp_path: Path, path: str, value: Any) -> None:
    """The suite's mutations of a valid bundle fail, each with an error that names the file."""
    folder = write_model(tmp_path, "key-simple")
    change_bundle(folder, set_member(path, value))
    with pytest.raises(SignatureInvalid, match=re.escape(str(folder / SIGNATURE))):
        verify_folder(folder, KEY)


@pytest.mark.parametrize("length", [0, 100])
def test_truncated_bundles_fail(tmp_path: Path, length: int) -> None:
    """An empty bundle and a bundle cut to 100 bytes fail."""
    folder = write_model(tmp_path, "key-simple")
    (folder / SIGNATURE).write_bytes((folder / SIGNATURE).read_bytes()[:length])
    with pytest.raises(ArtefactError):
        verify_folder(folder, KEY)
