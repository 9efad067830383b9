"""Sign the files of an artefact folder, and verify them against the signature in the folder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from io import BufferedReader
from pathlib import Path, PurePosixPath

from model.errors import ArtefactError
from model.registry.artefact import SIGNATURE
from model.signing.bundle import sign_payload, verify_bundle
from model.signing.errors import ArtefactChanged, ArtefactUnsigned, SignatureInvalid
from model.signing.keys import PrivateKey, PublicKey
from model.signing.statement import Statement, parse_statement, write_statement

# At the top level of a folder, these are never part of a model (OMS v1.0, section 6.2).
_GIT = (".git", ".gitattributes", ".github", ".gitignore")
_MAX_SIGNATURE_BYTES = 1 << 20  # about 5,000 files
_LISTED_FILES = 3
_UNFINISHED = f"{SIGNATURE}.new"  # an interrupted `sign_folder` leaves it behind


def sign_folder(folder: Path, key: PrivateKey) -> Statement:
    """Write the signature of all files into the folder, replacing an earlier one. Raises ArtefactError."""
    ignored, new = (SIGNATURE, *_GIT), folder / _UNFINISHED
    files = _hash_files(folder, _list_files(folder, (*ignored, _UNFINISHED)))
    if not files:
        raise ArtefactError(f"{folder} has no files to sign. Give the folder of an exported model.")
    statement = Statement(folder.resolve().name, files, ignored)
    try:
        new.write_bytes(sign_payload(write_statement(statement), key))
        new.replace(folder / SIGNATURE)
    except OSError as error:
        raise ArtefactError(f"{folder / SIGNATURE} cannot be written: {error.strerror}.") from error
    return statement


def verify_folder(folder: Path, key: PublicKey, *, complete: bool = True) -> Statement:
    """Verify the signature with `key`, then the folder's files against the signature, without parsing any of them.

    Unless `complete`, signed files may be missing: a deployment can leave out files that it does not open. Raises
    ArtefactUnsigned, SignatureInvalid, ArtefactChanged, and ArtefactError if a file is unreadable.
    """
    try:
        statement = parse_statement(verify_bundle(_read_signature(folder), key))
    except SignatureInvalid as error:
        raise SignatureInvalid(f"{folder / SIGNATURE}: {error}") from None
    present = set(_list_files(folder, (SIGNATURE, _UNFINISHED, *_GIT, *statement.ignored)))
    signed = set(statement.files)
    _check(folder, "not signed", present - signed)
    if complete:
        _check(folder, "missing", signed - present)
    found = _hash_files(folder, present)
    _check(folder, "not as it was signed", {name for name, digest in found.items() if digest != statement.files[name]})
    return statement


def _check(folder: Path, problem: str, names: Iterable[str]) -> None:
    """Raise ArtefactChanged if `names` is not empty."""
    first = sorted(names)
    if not first:
        return
    more = f" and {len(first) - _LISTED_FILES} more" if len(first) > _LISTED_FILES else ""
    verb = "is" if len(first) == 1 else "are"
    raise ArtefactChanged(
        f"{', '.join(first[:_LISTED_FILES])}{more} in {folder} {verb} {problem}. Copy the artefact again, or sign it "
        "again if the change is yours."
    )


def _read_signature(folder: Path) -> bytes:
    path = folder / SIGNATURE
    try:
        with _open(path) as file:
            data = file.read(_MAX_SIGNATURE_BYTES + 1)
    except FileNotFoundError:
        raise ArtefactUnsigned(
            f"{folder} is not signed: it has no {SIGNATURE}. Sign it with `atalaya models sign {folder} --key KEY.pem`."
        ) from None
    except OSError as error:
        raise ArtefactError(f"{path} cannot be read: {error.strerror}.") from error
    if len(data) > _MAX_SIGNATURE_BYTES:
        raise SignatureInvalid(f"It is larger than {_MAX_SIGNATURE_BYTES} bytes.")
    return data


def _list_files(folder: Path, ignored: Iterable[str]) -> Iterator[str]:
    """Yield the relative paths of the files, without ignored files and folders.

    Raises ArtefactError for a link, which could lead out of the folder, and for anything else that is not a file.
    """
    skipped = {parts for path in ignored if (parts := PurePosixPath(path).parts)}
    pending = [PurePosixPath()]
    while pending:
        parent = pending.pop()
        for entry in _scan(folder / parent):
            path = parent / entry.name
            if entry.is_symlink():
                raise ArtefactError(f"{folder / path} is a link. Replace it with the file that it names.")
            if path.parts in skipped:
                continue
            if entry.is_dir(follow_symlinks=False):
                pending.append(path)
            elif entry.is_file(follow_symlinks=False) and entry.name.isprintable():
                yield str(path)
            else:
                raise ArtefactError(f"{str(folder / path)!r} is not a file with a printable name. Remove it.")


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise ArtefactError(f"{folder} cannot be read: {error.strerror}.") from error


def _hash_files(folder: Path, names: Iterable[str]) -> Mapping[str, str]:
    """Return the SHA-256 of each file in hex. Raises ArtefactError."""
    digests = {}
    for name in names:
        try:
            with _open(folder / name) as file:
                digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise ArtefactError(f"{folder / name} cannot be read: {error.strerror}.") from error
    return digests


def _open(path: Path) -> BufferedReader:
    """Open a file without following a link, and without waiting for the writer of a pipe. Raises OSError."""
    return open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK))
