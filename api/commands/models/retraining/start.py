"""Finds the model that a retraining starts from, and the version that it creates."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from msgspec import Struct

from api.errors import CommandFailed
from api.services.registry import find_model_url, open_registry
from api.settings import Settings
from model.importing.check import check_model_file
from model.offline.retrain import MODEL
from model.registry.artefact import MANIFEST, read_manifest
from model.registry.errors import UnknownModel

_NUMBERED = re.compile(r"(\d{1,6})\.(\d{1,6})")


class StartModel(Struct, frozen=True):
    """A `.keras` file that passed the allow-list of imports; `version` is None outside of an artefact folder."""

    file: Path
    name: str
    version: str | None = None

    @property
    def description(self) -> str:
        return f"{self.name}-v{self.version}" if self.version else self.file.name


def find_start(settings: Settings, chosen: Path | None) -> StartModel:
    """Return the chosen start model, or by default the one behind the model that MODEL__URL names.

    Raises CommandFailed, UnsafeModelFile, RegistryError, ArtefactError.
    """
    if chosen is None:
        scheme, _, folder = find_model_url(settings).partition("://")
        if scheme == "stub":
            raise CommandFailed("MODEL__URL names no model that could be retrained. Name a .keras file with --from.")
        chosen = Path(folder)
    file = (chosen / MODEL if chosen.is_dir() else chosen).absolute()
    check_model_file(file)
    if not file.with_name(MANIFEST).exists():
        return StartModel(file, file.stem)
    manifest = read_manifest(file.parent)
    return StartModel(file, manifest.name, manifest.version)


def choose_version(settings: Settings, start: StartModel, name: str) -> str:
    """Return the version after the highest one of that model. Raises SettingsError without a registry."""
    try:
        versions = set(open_registry(settings).read(name).versions)
    except UnknownModel:
        versions = set()
    return next_version({*versions, *([start.version] if start.version else [])})


def next_version(versions: Iterable[str]) -> str:
    """Return the version with the next minor number: 1.10 after 1.9 and 1.2. Versions of another form are ignored."""
    numbered = [(int(match[1]), int(match[2])) for match in map(_NUMBERED.fullmatch, versions) if match]
    major, minor = max(numbered, default=(1, -1))
    return f"{major}.{minor + 1}"
