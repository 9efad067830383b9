"""Signed folders: every file is signed, and only what was signed verifies."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from model.errors import ArtefactError
from model.registry.artefact import SIGNATURE
from model.signing.errors import ArtefactChanged, ArtefactUnsigned, SignatureInvalid
from model.signing.folder import sign_folder, verify_folder
from tests.model.signing.forging import Change, new_key, read_statement, sign_changed_statement, write_files

KEY = new_key()
FILES = {"model.onnx": b"graph", "manifest.json": b"{}", "a/b.txt": b"nested", "a-b.txt": b"", ".hidden": b"dot"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A signed folder."""
    write_files(tmp_path / "model-v1", FILES)
    sign_folder(tmp_path / "model-v1", KEY)
    return tmp_path / "model-v1"


def verify(folder: Path, **options: Any) -> Any:
    return verify_folder(folder, KEY.public_key(), **options)


def test_every_file_is_signed(folder: Path) -> None:
    """The statement lists all files except the signature and Git's own, sorted by path."""
    write_files(folder, {".git/config": b"x", ".gitignore": b"x", "a/.gitignore": b"part of the model"})
    sign_folder(folder, KEY)
    statement = read_statement(folder)
    names = [resource["name"] for resource in statement["predicate"]["resources"]]
    assert names == sorted([*FILES, "a/.gitignore"])
    assert statement["subject"][0]["name"] == "model-v1"
    assert statement["predicate"]["serialization"] == {
        "method": "files",
        "hash_type": "sha256",
        "allow_symlinks": False,
        "ignore_paths": ["model.sig", ".git", ".gitattributes", ".github", ".gitignore"],
    }
    assert verify(folder).files.keys() == set(names)


def test_an_interrupted_signing_leaves_the_folder_verifiable(folder: Path) -> None:
    """The unfinished signature that an interrupted signing leaves is no part of the model; in a subfolder, it is."""
    write_files(folder, {f"{SIGNATURE}.new": b"interrupted"})
    assert verify(folder).files.keys() == FILES.keys()
    write_files(folder, {f"a/{SIGNATURE}.new": b"part of the model"})
    with pytest.raises(ArtefactChanged):
        verify(folder)


def test_a_folder_can_be_signed_again_and_renamed(folder: Path) -> None:
    """Signing replaces the signature, even after an interrupted signing, and the folder's name does not matter."""
    write_files(folder, {"model.onnx": b"another graph", f"{SIGNATURE}.new": b"interrupted"})
    sign_folder(folder, KEY)
    renamed = folder.rename(folder.with_name("renamed"))
    assert verify(renamed).name == "model-v1"
    assert sorted(path.name for path in renamed.iterdir()) == sorted(
        [*(n for n in FILES if "/" not in n), "a", SIGNATURE]
    )


def test_an_unsigned_folder_says_how_to_sign_it(folder: Path) -> None:
    """Without a signature, verification fails and names the command that makes one."""
    (folder / SIGNATURE).unlink()
    with pytest.raises(ArtefactUnsigned, match=r"atalaya models sign .* --key"):
        verify(folder)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda folder: write_files(folder, {"a/b.txt": b"Nested"}), "a/b.txt in .* is not as it was signed"),
        (lambda folder: write_files(folder, {"a/c.txt": b""}), "a/c.txt in .* is not signed"),
        (lambda folder: (folder / "a-b.txt").rename(folder / "b-b.txt"), "b-b.txt in .* is not signed"),
        (lambda folder: (folder / "a-b.txt").unlink(), "a-b.txt in .* is missing"),
        (lambda folder: (folder / "link").symlink_to("/etc/passwd"), "is a link"),
        (lambda folder: (folder / ".git").symlink_to("/etc"), "is a link"),
        (lambda folder: os.mkfifo(folder / "pipe"), "is not a file"),
        (lambda folder: write_files(folder, {"a\nb": b""}), "not a file with a printable name"),
        (lambda folder: (folder / os.fsdecode(b"a\xff")).touch(), "not a file with a printable name"),
    ],
    ids=["changed", "extra", "renamed", "missing", "link", "link to ignored", "pipe", "line end", "not UTF-8"],
)
def test_changes_are_found(folder: Path, change: Callable[[Path], object], problem: str) -> None:
    """A changed, extra, renamed or missing file, a link, a pipe and an unprintable name each fail verification."""
    change(folder)
    with pytest.raises(ArtefactError, match=problem):
        verify(folder)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), Path.mkdir])
def test_a_signature_that_is_no_file_fails_at_once(folder: Path, make: Callable[[Path], object]) -> None:
    """A pipe, a link or a folder in place of the signature is rejected without blocking or endless reading."""
    (folder / SIGNATURE).unlink()
    make(folder / SIGNATURE)
    with pytest.raises(ArtefactError):
        verify(folder)


def test_a_huge_signature_is_not_read(folder: Path) -> None:
    """A signature of more than a mebibyte is rejected."""
    (folder / SIGNATURE).write_bytes(b" " * (1 << 20) + (folder / SIGNATURE).read_bytes())
    with pytest.raises(SignatureInvalid, match="larger than 1048576 bytes"):
        verify(folder)


def test_a_deployment_can_leave_files_out(folder: Path) -> None:
    """With `complete=False`, files may be missing, but the files that are present are verified."""
    (folder / "model.onnx").unlink()
    assert "model.onnx" in verify(folder, complete=False).files
    write_files(folder, {"manifest.json": b"[]"})
    with pytest.raises(ArtefactChanged, match=r"manifest.json"):
        verify(folder, complete=False)


def test_a_folder_without_files_is_not_signed(tmp_path: Path) -> None:
    """An empty folder, a missing folder and a folder with a link cannot be signed."""
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ArtefactError):
            sign_folder(folder, KEY)
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(ArtefactError, match="is a link"):
        sign_folder(tmp_path, KEY)


def set_resource(**members: object) -> Change:
    return lambda statement: statement["predicate"]["resources"][0].update(members)


def set_serialization(**members: object) -> Change:
    return lambda statement: statement["predicate"]["serialization"].update(members)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda statement: statement.update(_type="https://in-toto.io/Statement/v0.1"), "its _type is not"),
        (lambda statement: statement.update(predicateType="https://model_signing/Digests/v0.1"), "its predicateType"),
        (lambda statement: statement["predicate"].update(resources=[]), "lists no file"),
        (lambda statement: statement["predicate"].pop("serialization"), "lacks the member 'serialization'"),
        (lambda statement: statement["subject"].append(statement["subject"][0]), "too many values"),
        (lambda statement: statement["subject"][0]["digest"].update(sha256="0" * 64), "root digest"),
        (lambda statement: statement["predicate"]["resources"].extend(statement["predicate"]["resources"]), "twice"),
        (set_resource(name="../model.onnx"), "not a path inside"),
        (set_resource(name="/etc/passwd"), "not a path inside"),
        (set_resource(name="a//b.txt"), "not a path inside"),
        (set_resource(name=""), "non-empty string"),
        (set_resource(algorithm="blake3"), "is not a SHA-256"),
        (set_resource(digest="AB" * 32), "is not a SHA-256"),
        (set_serialization(method="shards"), "only files by SHA-256"),
        (set_serialization(hash_type="blake2b"), "only files by SHA-256"),
        (set_serialization(allow_symlinks="no"), "allow_symlinks"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_statements_of_another_form_are_rejected(folder: Path, change: Change, problem: str) -> None:
    """Even with a valid signature, a statement must follow OMS v1.0, and name each file once and inside the folder."""
    sign_changed_statement(folder, KEY, change)
    with pytest.raises(SignatureInvalid, match=problem):
        verify(folder)
