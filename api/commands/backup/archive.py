"""What a backup contains: a tar archive, compressed with gzip, inside the frames of storage/backups.

manifest.json                                what made the backup, and what it contains
keys.env                                     the keys, if requested
registry/MODEL/versions/VERSION/FILE         the artefacts of the registry of models
tables/TABLE/NUMBER.jsonl                    the rows of a table, a JSON array for each
"""

from __future__ import annotations

import io
import json
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from gzip import BadGzipFile, GzipFile
from pathlib import Path
from typing import Any, BinaryIO, cast

from msgspec import Struct, ValidationError, convert
from msgspec.structs import asdict

from storage.backups.errors import BackupDamaged
from storage.backups.stream import BackupReader, BackupWriter

KEYS = "keys.env"
_MANIFEST = "manifest.json"
# A small compressed backup can expand to gigabytes. A manifest contains the state of each model of the registry.
_MAX_MANIFEST_BYTES = 1 << 24
_MAX_KEYS_BYTES = 1 << 20
_KEYS_UNENCRYPTED = "The backup contains keys but is not encrypted, so it was tampered with. Use another one."
_UNREADABLE = "The backup's content cannot be read. Use another one."


class Manifest(Struct, frozen=True):
    """`revisions` maps packages to their newest migration, `tables` tables to columns, `models` models to states.

    `made_at` is in ISO 8601, UTC.
    """

    release: str
    made_at: str
    revisions: Mapping[str, str]
    tables: Mapping[str, Sequence[str]]
    models: Mapping[str, str]
    keys: bool


class ArchiveWriter:
    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive

    def add_manifest(self, manifest: Manifest) -> None:
        self.add(_MANIFEST, json.dumps(asdict(manifest)).encode())

    def add(self, name: str, data: bytes) -> None:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        self._archive.addfile(member, io.BytesIO(data))

    def add_file(self, name: str, path: Path) -> None:
        """Raises OSError."""
        with path.open("rb") as file:
            member = self._archive.gettarinfo(arcname=name, fileobj=file)
            self._archive.addfile(member, file)


@contextmanager
def writing_archive(file: BinaryIO, passphrase: str | None) -> Iterator[ArchiveWriter]:
    """Write the archive's frames to a file, which is complete when the context ends without an error."""
    frames = BackupWriter(file, passphrase)
    with (
        GzipFile(fileobj=cast("BinaryIO", frames), mode="wb", compresslevel=6) as compressed,
        # A second hard link to a file would otherwise be a member without content.
        tarfile.open(fileobj=compressed, mode="w|", dereference=True) as archive,
    ):
        yield ArchiveWriter(archive)
    frames.close()


def read_archive(file: BinaryIO, passphrase: str | None) -> tuple[Manifest, Iterator[tuple[str, BinaryIO]]]:
    """Return the manifest, and an iterator over the names and contents of the other members.

    Read each member's content before advancing the iterator, which ends without an error only if the whole file is
    undamaged. Raises BackupDamaged, BackupTooNew, PassphraseWrong.
    """
    frames = BackupReader(file, passphrase)
    members = _read_members(frames)
    name, content = next(members, ("", io.BytesIO()))
    if name != _MANIFEST:
        raise BackupDamaged(_UNREADABLE)
    with _reporting_damage():
        manifest = convert(json.loads(_read(name, content, _MAX_MANIFEST_BYTES)), Manifest)
    if manifest.keys and passphrase is None:  # checksums do not prove who wrote the keys
        raise BackupDamaged(_KEYS_UNENCRYPTED)
    return manifest, members


def read_keys(content: BinaryIO) -> bytes:
    """Return the content of the member KEYS. Raises BackupDamaged."""
    return _read(KEYS, content, _MAX_KEYS_BYTES)


def _read(name: str, content: BinaryIO, limit: int) -> bytes:
    data = content.read(limit + 1)
    if len(data) > limit:
        raise BackupDamaged(f"{name} in the backup has more than {limit} bytes. Use another backup.")
    return data


def _read_members(frames: BackupReader) -> Iterator[tuple[str, BinaryIO]]:
    compressed = GzipFile(fileobj=cast("BinaryIO", frames), mode="rb")
    with _reporting_damage(), tarfile.open(fileobj=compressed, mode="r|") as archive:
        for member in archive:
            content: Any = archive.extractfile(member)
            if content is not None:
                yield member.name, content
    frames.finish()


@contextmanager
def _reporting_damage() -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, BadGzipFile, EOFError, zlib.error, ValueError, ValidationError, RecursionError) as error:
        raise BackupDamaged(_UNREADABLE) from error
