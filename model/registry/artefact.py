"""A model on disk: a folder with `manifest.json` and the files whose size and SHA-256 it names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from model.errors import ArtefactError, DigestMismatch

MANIFEST = "manifest.json"
SCHEMA = 1
# What `decode_image` delivers; a model that wants anything else cannot be served.
INPUT = {
    "shape": [256, 256, 3],
    "layout": "NHWC",
    "color": "RGB",
    "dtype": "float32",
    "range": [0, 255],
    "resize_filter": "bicubic",
}
# Fields whose JSON member has another name. The format is fixed: older artefacts must stay readable.
_MEMBER_NAMES = {"results": "figures"}


@dataclass(frozen=True, slots=True)
class FileEntry:
    """SHA-256 in lower-case hex, and the size in bytes."""

    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an artefact folder holds. `outputs` maps the names of the graph's outputs to what they are."""

    name: str
    version: str
    classes: tuple[str, ...]
    outputs: Mapping[str, str]
    files: Mapping[str, FileEntry]
    data: Mapping[str, Any]
    results: Mapping[str, Any]
    tools: Mapping[str, Any]

    @property
    def full_name(self) -> str:
        """Name and version in one word, such as "efficientnetb0-v1.0"."""
        return f"{self.name}-v{self.version}"


def write_manifest(  # noqa: PLR0913  (one keyword for each member of the document)
    folder: Path,
    *,
    name: str,
    version: str,
    classes: Sequence[str],
    outputs: Mapping[str, str],
    filenames: Sequence[str],
    data: Mapping[str, Any],
    results: Mapping[str, Any],
    tools: Mapping[str, Any],
) -> Manifest:
    """Write `manifest.json` into a folder that already holds `filenames`, with their sizes and digests."""
    manifest = Manifest(
        name=name,
        version=version,
        classes=tuple(classes),
        outputs=dict(outputs),
        files={filename: _describe(folder / filename) for filename in filenames},
        data=data,
        results=results,
        tools=tools,
    )
    members = {_MEMBER_NAMES.get(name, name): value for name, value in asdict(manifest).items()}
    document = {"schema": SCHEMA, "input": INPUT, **members}
    (folder / MANIFEST).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """Read `manifest.json`; the files it names are not opened. Raises ArtefactError."""
    path = folder / MANIFEST
    try:
        return _parse(json.loads(path.read_bytes()))
    except OSError as error:
        raise ArtefactError(f"There is no readable {path}. Give the folder of an exported model.") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ArtefactError(f"{path} is not a manifest of schema {SCHEMA}: {error}. Export the model again.") from error


def read_verified(folder: Path, manifest: Manifest, filename: str) -> bytes:
    """Read a file whole; the bytes returned are the very bytes that were checked.

    Raises ArtefactError when the file is not named or not there, DigestMismatch when it is another file.
    """
    entry = manifest.files.get(filename)
    if entry is None:
        raise ArtefactError(f"The manifest in {folder} names no {filename}. Export the model again.")
    try:
        with (folder / filename).open("rb") as file:
            data = file.read(entry.bytes + 1)
    except OSError as error:
        raise ArtefactError(f"{folder / filename} cannot be read. Copy the whole artefact folder.") from error
    if len(data) != entry.bytes or hashlib.sha256(data).hexdigest() != entry.sha256:
        raise DigestMismatch(f"{folder / filename} is not the file its manifest names. Copy or export it again.")
    return data


def find_artefact(folders: Iterable[Path], filename: str, digest: str) -> Path | None:
    """The first artefact folder whose manifest names `filename` with that SHA-256; others are passed over."""
    for folder in folders:
        try:
            entry = read_manifest(folder).files.get(filename)
        except ArtefactError:
            continue
        if entry is not None and entry.sha256 == digest:
            return folder
    return None


def _parse(document: Mapping[str, Any]) -> Manifest:
    if document["schema"] != SCHEMA:
        raise ValueError(f"its schema is {document['schema']}")
    if document["input"] != INPUT:
        raise ValueError(f"its input is not {json.dumps(INPUT)}")
    return Manifest(
        name=_text(document["name"]),
        version=_text(document["version"]),
        classes=tuple(_text(name) for name in document["classes"]),
        outputs={name: _text(meaning) for name, meaning in document["outputs"].items()},
        files={_plain(name): _entry(entry) for name, entry in document["files"].items()},
        data=dict(document["data"]),
        results=dict(document["figures"]),
        tools=dict(document["tools"]),
    )


def _describe(path: Path) -> FileEntry:
    data = path.read_bytes()
    return FileEntry(hashlib.sha256(data).hexdigest(), len(data))


def _entry(entry: Mapping[str, Any]) -> FileEntry:
    size = entry["bytes"]
    if type(size) is not int or size < 0:
        raise ValueError(f"{size!r} is not a size in bytes")
    return FileEntry(_text(entry["sha256"]), size)


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{value!r} is not a name")
    return value


def _plain(filename: str) -> str:
    """Names stay inside the folder."""
    if filename != Path(filename).name:
        raise ValueError(f"{filename!r} is not a plain file name")
    return filename
