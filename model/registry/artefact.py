"""Artefacts: folders with a model's files and a `manifest.json`, which describes the model and lists their SHA-256."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict

from model.confidence.model import DEFAULT_CONFIDENCE, ConfidenceModel
from model.drift.reference import Reference
from model.errors import ArtefactError, DigestMismatch
from model.imaging.input_spec import DEFAULT_INPUT, InputSpec
from model.registry.confidence import describe_confidence, parse_confidence
from model.registry.state import is_name
from model.signing.documents import parse_text
from model.signing.errors import ArtefactChanged

MANIFEST = "manifest.json"
SIGNATURE = "model.sig"
SCHEMA = 1
TRAINING_FILES = frozenset({"model.keras"})
"""Files that only training and export open. A deployment, such as the container image, can leave them out."""
MAX_BYTES = 2 << 30
"""The largest size of a file and of an artefact, more than any that the gateway serves."""
_DRIFT = "drift_reference"
# Members of "input" that the decoder produces for every model; no other values can be served.
_FIXED_INPUT = {"layout": "NHWC", "color": "RGB", "range": [0, 255]}
# Fields whose JSON member has another name. The format is fixed: older artefacts must stay readable.
_MEMBER_NAMES = {"results": "figures"}
# Fields that are written to JSON unchanged.
_PLAIN_FIELDS = ("name", "version", "classes", "outputs", "data", "results", "tools")


class FileEntry(Struct, frozen=True):
    """The SHA-256 of a file in lower-case hex, and its size in bytes."""

    sha256: str
    bytes: int


class Manifest(Struct, frozen=True):
    """The contents of an artefact folder. `outputs` maps the names of the graph's outputs to descriptions.

    `drift` is the reference for live traffic; None in artefacts that were exported without images.
    """

    name: str
    version: str
    classes: tuple[str, ...]
    outputs: Mapping[str, str]
    files: Mapping[str, FileEntry]
    data: Mapping[str, Any]
    results: Mapping[str, Any]
    tools: Mapping[str, Any]
    input_spec: InputSpec = DEFAULT_INPUT
    confidence: ConfidenceModel = DEFAULT_CONFIDENCE
    drift: Reference | None = None

    @property
    def full_name(self) -> str:
        """Name and version in one word, such as "efficientnetb0-v1.1"."""
        return f"{self.name}-v{self.version}"


def write_manifest(  # noqa: PLR0913  (each member of the document is a keyword)
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
    input_spec: InputSpec = DEFAULT_INPUT,
    confidence: ConfidenceModel = DEFAULT_CONFIDENCE,
    drift: Reference | None = None,
) -> Manifest:
    """Write `manifest.json`, with sizes and digests, into a folder that already contains `filenames`."""
    manifest = Manifest(
        name=name,
        version=version,
        classes=tuple(classes),
        outputs=dict(outputs),
        files={filename: _describe_file(folder / filename) for filename in filenames},
        data=data,
        results=results,
        tools=tools,
        input_spec=input_spec,
        confidence=confidence,
        drift=drift,
    )
    document = {
        "schema": SCHEMA,
        "input": _describe_input(input_spec),
        **{_MEMBER_NAMES.get(name, name): getattr(manifest, name) for name in _PLAIN_FIELDS},
        "files": {filename: asdict(entry) for filename, entry in manifest.files.items()},
        **describe_confidence(manifest.confidence),
        **({} if drift is None else {_DRIFT: drift.to_document()}),
    }
    (folder / MANIFEST).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return manifest


def read_manifest(folder: Path, signed: Mapping[str, str] | None = None) -> Manifest:
    """Read `manifest.json` without opening the files it names.

    `signed` maps signed files to their SHA-256 in hex. If it is given, the manifest is parsed only if it was signed. As
    the manifest contains the digests of the model's files, `read_verified` then returns only signed contents. Raises
    ArtefactError, ArtefactChanged.
    """
    path = folder / MANIFEST
    try:
        data = path.read_bytes()
        if signed is not None and signed.get(MANIFEST) != hashlib.sha256(data).hexdigest():
            raise ArtefactChanged(f"{path} is not the one that was signed. Copy the whole artefact folder again.")
        return _parse(json.loads(data))
    except OSError as error:
        raise ArtefactError(f"{path} is missing or unreadable. Give the folder of an exported model.") from error
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise ArtefactError(f"{path} is not a manifest of schema {SCHEMA}: {error}. Export the model again.") from error


def read_verified(folder: Path, manifest: Manifest, filename: str) -> bytes:
    """Read a file and verify its size and digest.

    Raises ArtefactError if the manifest does not list the file or the file is unreadable, and DigestMismatch if its
    contents differ.
    """
    entry = manifest.files.get(filename)
    if entry is None:
        raise ArtefactError(f"The manifest in {folder} does not list {filename}. Export the model again.")
    try:
        with (folder / filename).open("rb") as file:
            # `read` allocates the memory first. One byte more than expected shows that the file is larger.
            data = file.read(min(entry.bytes, os.fstat(file.fileno()).st_size) + 1)
    except OSError as error:
        raise ArtefactError(f"{folder / filename} cannot be read. Copy the whole artefact folder.") from error
    if len(data) != entry.bytes or hashlib.sha256(data).hexdigest() != entry.sha256:
        raise DigestMismatch(f"{folder / filename} differs from its manifest. Copy or export it again.")
    return data


def list_present(folder: Path, manifest: Manifest) -> list[str]:
    """Return the files of the manifest, except missing files for training."""
    return [name for name in manifest.files if name not in TRAINING_FILES or (folder / name).exists()]


def find_artefact(folders: Iterable[Path], filename: str, digest: str, full_name: str) -> Path | None:
    """Return a folder whose manifest lists `filename` with this SHA-256, preferably one with this full name; or None.

    Versions can share a file but differ in the rest of the manifest. Skips folders without a manifest.
    """
    other_version = None
    for folder in folders:
        try:
            manifest = read_manifest(folder)
        except ArtefactError:
            continue
        entry = manifest.files.get(filename)
        if entry is not None and entry.sha256 == digest:
            if manifest.full_name == full_name:
                return folder
            other_version = other_version or folder
    return other_version


def _parse(document: Mapping[str, Any]) -> Manifest:
    if document["schema"] != SCHEMA:
        raise ValueError(f"its schema is {document['schema']}")
    return Manifest(
        name=parse_text(document["name"]),
        version=parse_text(document["version"]),
        classes=tuple(parse_text(name) for name in document["classes"]),
        outputs={name: parse_text(meaning) for name, meaning in document["outputs"].items()},
        files={_check_filename(name): _parse_entry(entry) for name, entry in document["files"].items()},
        data=dict(document["data"]),
        results=dict(document["figures"]),
        tools=dict(document["tools"]),
        input_spec=_parse_input(document.get("input", {})),
        confidence=parse_confidence(document),
        drift=Reference.from_document(document[_DRIFT]) if _DRIFT in document else None,
    )


def _describe_input(spec: InputSpec) -> dict[str, Any]:
    members = {"shape": list(spec.shape), "dtype": spec.dtype, **_FIXED_INPUT, "resize_filter": spec.resize_filter}
    resolution = spec.ground_resolution_m
    return members if resolution is None else {**members, "ground_resolution_m": resolution}


def _parse_input(document: Mapping[str, Any]) -> InputSpec:
    """Read the "input" member. Missing members have the values of the default input."""
    members = {**_describe_input(DEFAULT_INPUT), **document}
    height, width, channels = members["shape"]
    spec = InputSpec(width, height, members["resize_filter"], members.get("ground_resolution_m"), members["dtype"])
    if channels != 3 or members != _describe_input(spec):
        raise ValueError(f"its input is not RGB: {json.dumps(_FIXED_INPUT)}")
    return spec


def _describe_file(path: Path) -> FileEntry:
    data = path.read_bytes()
    return FileEntry(hashlib.sha256(data).hexdigest(), len(data))


def _parse_entry(entry: Mapping[str, Any]) -> FileEntry:
    size = entry["bytes"]
    if type(size) is not int or not 0 <= size <= MAX_BYTES:
        raise ValueError(f"{size!r} is not a size in bytes of at most {MAX_BYTES}")
    return FileEntry(parse_text(entry["sha256"]), size)


def _check_filename(filename: str) -> str:
    """Reject names that refer to files outside the folder, or that a file system or a backup may not support."""
    if not is_name(filename):
        raise ValueError(f"{filename!a} is not a plain file name")
    return filename
