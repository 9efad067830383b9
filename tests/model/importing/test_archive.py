"""The members of a .keras archive: sizes, compression and names, checked before any member is parsed."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from zipfile import ZIP_BZIP2, ZIP_DEFLATED, ZIP_LZMA, ZipFile

import pytest

from model.errors import UnsafeModelFile
from model.importing.check import check_model_file
from tests.model.importing.model_files import dense, model, write_keras

_CENTRAL_ENTRY = b"PK\x01\x02"
_END = b"PK\x05\x06"


def add_large_metadata(path: Path) -> None:
    """Replace the metadata by an uncompressed document of 64 KiB and one byte."""
    with ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["metadata.json"] = b'{"keras_version": "3.15.1"}'.ljust((1 << 16) + 1)
    with ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def remove_weights(path: Path) -> None:
    with ZipFile(path) as archive:
        members = {name: archive.read(name) for name in ("metadata.json", "config.json")}
    with ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def change_central_entry(offset: int, value: int) -> Callable[[Path], None]:
    """Return a function that changes a 16-bit field of the first member in the archive's directory."""

    def change(path: Path) -> None:
        data = bytearray(path.read_bytes())
        struct.pack_into("<H", data, data.index(_CENTRAL_ENTRY) + offset, value)
        path.write_bytes(data)

    return change


def hide_a_second_name(path: Path) -> None:
    """Insert a NUL into the first member's name in the directory; some readers end the name there."""
    data = path.read_bytes()
    at = data.rindex(b"metadata.json")
    path.write_bytes(data[: at + 8] + b"\0" + data[at + 9 :])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (add_large_metadata, "metadata.json has 65537 bytes; at most 65536 are allowed"),
        (remove_weights, "lacks model.weights.h5"),
        (change_central_entry(8, 0x1), "is encrypted"),
        (change_central_entry(10, ZIP_LZMA), "unusual method"),
        (hide_a_second_name, "has the member 'metadata'"),
    ],
    ids=["large", "missing", "encrypted", "method", "nul"],
)
def test_unusual_archive_is_rejected(change: Callable[[Path], None], reason: str, tmp_path: Path) -> None:
    """A member that is too large, missing, encrypted, ambiguously named or compressed by another method is rejected."""
    path = write_keras(tmp_path / "model.keras", model(dense()))
    change(path)
    with pytest.raises(UnsafeModelFile, match=reason):
        check_model_file(path)


@pytest.mark.parametrize("method", [ZIP_BZIP2, ZIP_LZMA])
def test_only_the_usual_compression_is_read(method: int, tmp_path: Path) -> None:
    """An archive that is compressed with Deflate is accepted; with bzip2 or LZMA it is rejected."""
    check_model_file(write_keras(tmp_path / "model.keras", model(dense()), compression=ZIP_DEFLATED))
    with pytest.raises(UnsafeModelFile, match="unusual method"):
        check_model_file(write_keras(tmp_path / "model.keras", model(dense()), compression=method))


def test_a_full_disk_is_not_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the temporary copy of the weights cannot be written, the error is the operating system's."""
    path = write_keras(tmp_path / "model.keras", model(dense()))
    with Path("/dev/full").open("wb") as full:
        monkeypatch.setattr(tempfile, "TemporaryFile", lambda: full)
        with pytest.raises(OSError, match="No space left on device"):
            check_model_file(path)


@pytest.mark.parametrize(
    ("record", "offset", "value"),
    [(_CENTRAL_ENTRY, 42, 0x7FFFFFFF), (_END, 12, 0x7FFFFFFF), (_END, 16, 0x7FFFFFFF)],
    ids=["member", "size of the directory", "directory"],
)
def test_a_position_outside_of_the_file_is_damage(record: bytes, offset: int, value: int, tmp_path: Path) -> None:
    """An archive that places a member or its directory outside of the file is rejected as damaged."""
    path = write_keras(tmp_path / "model.keras", model(dense()))
    data = bytearray(path.read_bytes())
    struct.pack_into("<L", data, data.index(record) + offset, value)
    path.write_bytes(data)
    with pytest.raises(UnsafeModelFile, match="is damaged"):
        check_model_file(path)
