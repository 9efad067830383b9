"""A registry with versions of the shipped model, for gateways that follow an alias."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from model.registry.artefact import MANIFEST
from model.registry.files import FileRegistry
from tests.support.paths import ARTEFACT

NAME = "efficientnetb0"
ALIAS = "production"
URL = f"registry://{NAME}@{ALIAS}"

_FILES = ("model.onnx", "head.npz")
_CLASSES = json.loads((ARTEFACT / MANIFEST).read_text())["classes"]
# The two versions differ in these values, so that a response that mixes both is detected.
TEMPERATURES = {"2.0": 1.5, "2.1": 3.0}
LABELS = {"2.0": _CLASSES, "2.1": _CLASSES[::-1]}


class ModelRegistry:
    """A registry in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = FileRegistry(folder)

    @property
    def settings(self) -> dict[str, str]:
        """The settings with which a gateway follows the alias."""
        return {"MODEL__REGISTRY": f"file://{self.folder}", "MODEL__URL": URL}

    def add(self, version: str, files: Mapping[str, bytes] | None = None, **members: Any) -> None:
        """Add the shipped model under another version; see `write_variant`."""
        with TemporaryDirectory() as folder:
            write_variant(Path(folder), version, files or {}, **members)
            self.files.add(Path(folder))

    @property
    def promoted(self) -> str:
        return self.files.read(NAME).find_alias(ALIAS)

    def promote(self, version: str) -> None:
        self.files.move_aliases(NAME, {ALIAS: version}, who="cli:olga", why="a test")

    def find_file(self, version: str, name: str) -> Path:
        """Return the path of a file in the registry, so that a test can damage it."""
        return self.files.find_folder(NAME, version) / name


def write_variant(folder: Path, version: str, changed: Mapping[str, bytes], **members: Any) -> None:
    """Write the artefact of the shipped model, unsigned, with another version.

    `changed` replaces files by name, and `members` replaces members of the manifest.
    """
    document = json.loads((ARTEFACT / MANIFEST).read_text())
    files = {}
    for name in _FILES:
        content = changed.get(name) or (ARTEFACT / name).read_bytes()
        (folder / name).write_bytes(content)
        files[name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    (folder / MANIFEST).write_text(json.dumps({**document, "version": version, "files": files, **members}))


def make_registry(folder: Path) -> ModelRegistry:
    """Make a registry with the versions of TEMPERATURES, the first one in production."""
    registry = ModelRegistry(folder)
    for version, temperature in TEMPERATURES.items():
        registry.add(version, classes=LABELS[version], calibration={"temperature": temperature})
    registry.promote(next(iter(TEMPERATURES)))
    return registry


def find_other(version: str) -> str:
    (other,) = TEMPERATURES.keys() - {version}
    return other


def read_entries(database: Path) -> dict[str, Any]:
    """Return the ledger entries in an SQLite database by prediction id."""
    with closing(sqlite3.connect(database)) as connection:
        rows = connection.execute("SELECT id, document FROM ledger_payloads").fetchall()
    return {row[0]: json.loads(row[1]) for row in rows}


def find_mixture(body: dict[str, Any], entry: dict[str, Any]) -> str | None:
    """Return what in a response or its ledger entry belongs to another version than the response names, if anything."""
    version, output = body["model"]["version"], entry["output"]
    recorded = (entry["model"]["version"], entry["model"]["digest"], output["label"], output["confidence"])
    if recorded != (version, body["model"]["digest"], body["label"], body["confidence"]):
        return f"the entry differs: {recorded}"
    if output["temperature"] != TEMPERATURES[version]:
        return f"the temperature is {output['temperature']}"
    best = max(output["probabilities"], key=output["probabilities"].get)
    if not LABELS[version][output["index"]] == best == body["label"]:
        return f"the label is {body['label']}"
    return None
