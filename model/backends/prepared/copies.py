"""The folder of prepared copies. Only copies that this gateway has written are opened (ADR 0029).

A copy is a folder with the graph, the weights, and a record with their digests. The record is authenticated with a key
that only the gateway has, so that an attacker with write access to the folder cannot change predictions.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from msgspec import Struct

from model.backends.prepared.errors import PreparedCopyAbsent, PreparedCopyRejected
from model.backends.prepared.machine import describe_machine
from model.backends.prepared.private import map_private_file, open_private_folder, read_private_file, release_pages
from model.registry.artefact import FileEntry

GRAPH, WEIGHTS, RECORD = "graph.onnx", "weights.bin", "record.json"
FORMAT = 1
"""Part of every copy's name. A new number makes the copies of earlier releases unused."""

_RECORD_LIMIT = 64 << 10
_PURPOSE = b"atalaya: records of prepared copies"
_KEY_NAME = b"name of the key"


class PreparedCopy(Struct, frozen=True):
    """A verified copy. `weights` is a mapping of the file: its pages are shared with other processes."""

    graph: bytes
    weights: memoryview


def derive_key(secret: str) -> bytes:
    """Derive the key of the records from a secret with another purpose, without revealing that secret."""
    return hmac.digest(secret.encode(), _PURPOSE, "sha256")


class PreparedCopies:
    """The copies in `folder`, whose records are authenticated with `key`."""

    def __init__(self, folder: Path, key: bytes) -> None:
        self.folder = folder
        self.key = key

    def name_copy(self, digest: str) -> str:
        """Return the folder name of the copy of the model file with this SHA-256, for this machine and key."""
        # The key is part of the name, so that after a change of key an older copy is absent rather than rejected.
        key_name = hmac.digest(self.key, _KEY_NAME, "sha256").hex()
        facts = {"format": FORMAT, "model": digest, "key": key_name, "machine": describe_machine()}
        return hashlib.sha256(_encode(facts)).hexdigest()

    def open(self, digest: str) -> PreparedCopy:
        """Open and verify the copy of a model. Raises PreparedCopyAbsent, PreparedCopyRejected."""
        name = self.name_copy(digest)
        try:
            with open_private_folder(self.folder) as parent, open_private_folder(Path(name), parent) as folder:
                files = self._read_record(name, folder)
                graph = read_private_file(GRAPH, folder, files[GRAPH].bytes)
                weights = map_private_file(WEIGHTS, folder, files[WEIGHTS].bytes)
                _verify(GRAPH, graph, files[GRAPH])
                _verify(WEIGHTS, weights, files[WEIGHTS])
                release_pages(weights)
                with suppress(OSError):  # the builder removes the least recently used copies
                    os.utime(folder)
        except FileNotFoundError as error:
            if error.filename in {str(self.folder), name}:
                raise PreparedCopyAbsent("the model has no prepared copy for this machine") from None
            raise PreparedCopyRejected(f"{error.filename} is missing") from None
        except OSError as error:
            raise PreparedCopyRejected(f"{error.filename or self.folder}: {error.strerror}") from None
        return PreparedCopy(graph, weights)

    def make_record(self, name: str, files: Mapping[str, FileEntry]) -> bytes:
        """Return the record of the copy `name`."""
        document = _describe(name, files)
        return json.dumps({**document, "mac": self._authenticate(document)}).encode()

    def _read_record(self, name: str, folder: int) -> dict[str, FileEntry]:
        data = read_private_file(RECORD, folder, _RECORD_LIMIT)
        try:
            document = json.loads(data)
            files = {file: FileEntry(**document["files"][file]) for file in (GRAPH, WEIGHTS)}
            mac = str(document["mac"])
        except (ValueError, TypeError, KeyError):
            raise PreparedCopyRejected(f"{RECORD} is not a record") from None
        if not hmac.compare_digest(self._authenticate(_describe(name, files)).encode(), mac.encode()):
            raise PreparedCopyRejected(f"{RECORD} was not written with this gateway's key")
        return files

    def _authenticate(self, document: Mapping[str, Any]) -> str:
        return hmac.digest(self.key, _encode(document), "sha256").hex()


def encode_job(copies: PreparedCopies, artefact: Path, digest: str) -> bytes:
    """Return the standard input of `python -m model.backends.prepared`, which builds the copy of an artefact."""
    folders = {"folder": str(copies.folder.absolute()), "artefact": str(artefact.absolute())}
    return _encode({**folders, "digest": digest, "key": copies.key.hex()})


def describe_contents(data: bytes | memoryview) -> FileEntry:
    """Return the SHA-256 and the size of a file's contents."""
    return FileEntry(hashlib.sha256(data).hexdigest(), len(data))


def _verify(name: str, data: bytes | memoryview, entry: FileEntry) -> None:
    if describe_contents(data) != entry:
        raise PreparedCopyRejected(f"{name} differs from its record")


def _describe(name: str, files: Mapping[str, FileEntry]) -> dict[str, Any]:
    return {"copy": name, "files": {file: {"sha256": e.sha256, "bytes": e.bytes} for file, e in sorted(files.items())}}


def _encode(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
