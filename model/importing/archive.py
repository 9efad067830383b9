"""Check the structure of a `.keras` file, a ZIP archive, before parsing any of its members."""

from __future__ import annotations

import errno
import stat
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from model.errors import UnsafeModelFile

CONFIG = "config.json"
METADATA = "metadata.json"
WEIGHTS = "model.weights.h5"
# The largest sizes in bytes. EfficientNetB7 has 1 MB of configuration, and 270 MB of weights without an optimizer.
_LIMITS = {METADATA: 1 << 16, CONFIG: 16 << 20, WEIGHTS: 2 << 30}
_MAX_RATIO = 100
_ENCRYPTED = 0x1
_CHUNK = 1 << 20


@contextmanager
def open_archive(path: Path, shown: Path) -> Iterator[ZipFile]:
    """Open a .keras file, which messages name `shown`, and check the list of its members.

    Raises UnsafeModelFile, including for damage that is found when the block reads a member. Raises OSError if the
    operating system fails, for example because the disk is full.
    """
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            raise UnsafeModelFile(f"{shown} is not a .keras file. Create one with model.save('NAME.keras').")
        try:
            with ZipFile(file) as archive:
                _check_members(archive.infolist())
                yield archive
        except (BadZipFile, zlib.error, EOFError, NotImplementedError, OSError) as error:
            # A damaged archive may name an invalid position in the file.
            if isinstance(error, OSError) and error.errno not in {None, errno.EINVAL}:
                raise
            raise UnsafeModelFile(f"{shown} is damaged: {error}. Copy it again, or save the model again.") from error


def read_member(archive: ZipFile, name: str) -> bytes:
    """Return a small member, cut off at its limit. `open_archive` converts the errors of a damaged member."""
    with archive.open(name) as member:
        return member.read(_LIMITS[name] + 1)[: _LIMITS[name]]


@contextmanager
def extract_weights(archive: ZipFile) -> Iterator[IO[bytes]]:
    """Copy the weights to an unnamed temporary file, which exists until the end of the block."""
    with archive.open(WEIGHTS) as member, tempfile.TemporaryFile() as file:
        while chunk := member.read(_CHUNK):
            file.write(chunk)
        file.flush()
        yield file


def _check_members(members: list[ZipInfo]) -> None:
    names = [member.filename for member in members]
    unknown = sorted(set(names) - set(_LIMITS))
    if unknown:
        raise UnsafeModelFile(
            f"The archive has the member {unknown[0][:80]!a}. A .keras file of an image classifier has only "
            f"{', '.join(_LIMITS)}."
        )
    if len(names) != len(_LIMITS):
        missing = sorted(set(_LIMITS) - set(names))
        problem = f"lacks {missing[0]}" if missing else "has two members of the same name"
        raise UnsafeModelFile(f"The archive {problem}. Save the model again with model.save('NAME.keras').")
    for member in members:
        _check_member(member)


def _check_member(member: ZipInfo) -> None:
    name, kind = member.filename, stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise UnsafeModelFile(f"{name} is not a regular file in the archive. Save the model again.")
    if member.orig_filename != name or member.flag_bits & _ENCRYPTED:
        raise UnsafeModelFile(f"{name} is encrypted, or has a second name. Save the model again.")
    if member.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        raise UnsafeModelFile(f"{name} is compressed with an unusual method. Save the model again.")
    if member.file_size > _LIMITS[name]:
        raise UnsafeModelFile(f"{name} has {member.file_size} bytes; at most {_LIMITS[name]} are allowed.")
    if member.file_size > max(member.compress_size, 1) * _MAX_RATIO:
        raise UnsafeModelFile(
            f"{name} has more than {_MAX_RATIO} times the size of its compressed data. Save it without compression."
        )
