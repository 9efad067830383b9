"""Copies of the versions that aliases name in MLflow, in a FileRegistry whose aliases follow MLflow's."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import mkdtemp

from model.errors import ArtefactError, ModelError
from model.registry.artefact import MANIFEST, SIGNATURE, Manifest, read_manifest
from model.registry.errors import RegistryAccessDenied, RegistryUnavailable, UnknownModel, VersionExists
from model.registry.files import FileRegistry
from model.registry.mlflow.server import MlflowServer, NotFound, RegisteredModel
from model.registry.state import ModelState, check_name
from model.signing.folder import verify_folder
from model.signing.keys import PublicKey
from storage.folders import lock_folder

RETRY_S = 60.0
"""A version that was refused is downloaded again after this, in case it was uploaded again."""

_DOWNLOAD = ".download-"
_MAX_DOCUMENT_BYTES = 8 << 20  # a manifest or a signature
_MAX_BYTES = 2 << 30  # more than any artefact that the gateway serves

MoveAliases = Callable[[Mapping[str, str | None]], object]


@dataclass(frozen=True, slots=True)
class Pull:
    """What one look at MLflow brought: the version that each moved alias names now (None for a removed one), and why
    other aliases could not be followed."""

    moved: Mapping[str, str | None]
    refused: Mapping[str, ModelError]


class Mirror:
    """Lets the aliases of `model` in the FileRegistry in `folder` follow those in MLflow.

    With `key`, each version must be signed. `move` makes a move of aliases; `record_moves` records those that are not
    recorded yet, and is called at each look. Several processes may use the same folder.
    """

    def __init__(
        self,
        server: MlflowServer,
        folder: Path,
        *,
        model: str,
        key: PublicKey | None,
        move: MoveAliases,
        record_moves: Callable[[], object] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._server = server
        self._folder = folder
        self._registry = FileRegistry(folder)
        self._model = model
        self._key = key
        self._move = move
        self._record_moves = record_moves
        self._clock = clock
        self._refused: dict[str, tuple[float, ModelError]] = {}

    def pull(self) -> Pull:
        """Copy new versions and move the aliases. Raises RegistryUnavailable, RegistryAccessDenied, UnknownModel."""
        registered = self._server.read_model(self._model)
        targets: dict[str, str | None] = {}
        refused: dict[str, ModelError] = {}
        for alias, number in registered.aliases.items():
            try:
                targets[check_name(alias)] = self._find_version(registered, number)
            except (RegistryUnavailable, RegistryAccessDenied):
                raise
            except ModelError as error:
                refused[alias] = error
        before = self._read_state().aliases
        targets |= {alias: None for alias in before if alias not in registered.aliases}
        moved = {alias: version for alias, version in targets.items() if before.get(alias) != version}
        if moved:
            self._move(moved)
        self._record_moves()
        return Pull(moved, refused)

    def _read_state(self) -> ModelState:
        try:
            return self._registry.read(self._model)
        except UnknownModel:
            return ModelState()

    def _find_version(self, registered: RegisteredModel, number: str) -> str:
        """Return the mirrored version that MLflow knows by `number`, after copying it if need be."""
        tag, created = f"mlflow.{number}", str(registered.created)
        for version in self._read_state().versions.values():
            if version.tags.get(tag) == created:
                return version.version
        retry_at, refusal = self._refused.get(f"{tag} {created}", (0.0, None))
        if refusal is not None and self._clock() < retry_at:
            raise refusal
        try:
            version_name = self._copy(number)
        except (RegistryUnavailable, RegistryAccessDenied):
            raise  # says nothing about the version
        except ModelError as error:
            self._refused[f"{tag} {created}"] = self._clock() + RETRY_S, error.with_traceback(None)
            raise
        self._registry.tag(self._model, version_name, {tag: created})
        return version_name

    def _copy(self, number: str) -> str:
        """Copy a version into the registry, unless it is there already; return its name."""
        try:
            source = self._server.find_artifacts(self._model, number)
            self._folder.mkdir(parents=True, exist_ok=True)
            with lock_folder(self._folder):
                for left in self._folder.glob(f"{_DOWNLOAD}*"):  # by a process that was killed
                    shutil.rmtree(left)
                target = Path(mkdtemp(prefix=_DOWNLOAD, dir=self._folder))
                try:
                    return self._add(number, self._download(source, target), target)
                except ArtefactError as error:  # names the folder, which is temporary here
                    raise type(error)(str(error).replace(str(target), f"version {number} in MLflow")) from None
                finally:
                    shutil.rmtree(target)
        except NotFound as error:
            raise ArtefactError(f"Version {number} of {self._model} is incomplete in MLflow: {error}") from error
        except OSError as error:
            raise RegistryUnavailable(
                f"The mirror in {self._folder} cannot be used: {error.strerror}. Check the folder and its permissions."
            ) from error

    def _download(self, source: str, target: Path) -> Manifest:
        """Download an artefact. With a key, only signed documents are parsed, and only signed files are downloaded."""
        self._server.download(f"{source}/{MANIFEST}", target / MANIFEST, _MAX_DOCUMENT_BYTES)
        with suppress(NotFound):
            self._server.download(f"{source}/{SIGNATURE}", target / SIGNATURE, _MAX_DOCUMENT_BYTES)
        signed = None if self._key is None else verify_folder(target, self._key, complete=False).files
        manifest = read_manifest(target, signed)
        if manifest.name != self._model:
            raise ArtefactError(f"It is of the model {manifest.name!r}. Publish it as a registered model of this name.")
        size = sum(entry.bytes for entry in manifest.files.values())
        if size > _MAX_BYTES:
            raise ArtefactError(f"Its files have {size} bytes together, more than {_MAX_BYTES}.")
        for filename, entry in manifest.files.items():
            self._server.download(f"{source}/{filename}", target / filename, entry.bytes)
        return manifest

    def _add(self, number: str, manifest: Manifest, folder: Path) -> str:
        try:
            return self._registry.add(folder).version
        except VersionExists:
            digest = sha256((folder / MANIFEST).read_bytes()).hexdigest()
            if self._registry.read(self._model).find(manifest.version).manifest_sha256 != digest:
                raise VersionExists(
                    f"Version {number} in MLflow is another {manifest.full_name} than the one that was mirrored "
                    "before. A version never changes: publish it under another one."
                ) from None
            return manifest.version
