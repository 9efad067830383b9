"""Read the files of a registry for a backup, and restore them."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from msgspec import Struct, field

from model.registry.errors import RegistryUnavailable
from model.registry.files import STATE, VERSIONS, FileRegistry, replace_file
from model.registry.state import NAME_PATTERN, ModelState, check_name, parse_state, serialise_state
from storage.folders import sync_folder

_FILE = re.compile(rf"{VERSIONS}/({NAME_PATTERN})/{NAME_PATTERN}")


class ModelCopy(Struct, frozen=True):
    """A snapshot of a model: its folder and its state. The files of a version never change."""

    home: Path
    state: ModelState

    def list_files(self) -> Iterator[tuple[str, Path]]:
        """Yield the name, relative to the model's folder, and the path of each file except the state."""
        for version in self.state.versions:
            for path in sorted((self.home / VERSIONS / version).iterdir()):
                yield f"{VERSIONS}/{version}/{path.name}", path

    def serialise_state(self) -> bytes:
        return serialise_state(self.state)


def read_models(registry: FileRegistry) -> list[ModelCopy]:
    """Read the state of every model. Raises RegistryUnavailable."""
    return [ModelCopy(registry.root / name, registry.read(name)) for name in registry.list_models()]


class RegistryRestore(Struct):
    """Restores models that the registry lacks. Models that it already has are unchanged.

    A model becomes visible with `finish`, when all of its files are complete. Raises RegistryUnavailable, InvalidName.
    """

    registry: FileRegistry
    _states: dict[str, ModelState] = field(default_factory=dict)

    def begin(self, states: Mapping[str, str]) -> None:
        """Set the models to restore, with their states as text."""
        existing = self.registry.list_models()
        for model, state in states.items():
            if model not in existing:
                self._states[check_name(model)] = parse_state(state.encode())

    def write(self, model: str, name: str, source: BinaryIO) -> None:
        """Write a file of a model to restore. `name` is a name from `list_files`. Ignores other models."""
        if model not in self._states:
            return
        parts = _FILE.fullmatch(name)
        if parts is None or parts[1] not in self._states[model].versions:
            raise RegistryUnavailable(f"The backup has a file {name!r}, which belongs to no version of {model}.")
        path = self.registry.root / model / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as target:
                shutil.copyfileobj(source, target)
                target.flush()
                os.fsync(target.fileno())
            sync_folder(path.parent)
        except OSError as error:
            raise RegistryUnavailable(f"{path} cannot be written: {error.strerror}.") from error

    def finish(self) -> list[str]:
        """Sync all files to disk, then make the models visible. Returns their names."""
        root = self.registry.root
        for model, state in self._states.items():
            home = root / model
            try:
                (home / VERSIONS).mkdir(parents=True, exist_ok=True)
                for folder in (home / VERSIONS, home, root):
                    sync_folder(folder)
                replace_file(home / STATE, serialise_state(state))
            except OSError as error:
                raise RegistryUnavailable(f"{home} cannot be written: {error.strerror}.") from error
        return list(self._states)
