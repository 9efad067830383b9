"""Copy the versions that MLflow's aliases point to into a FileRegistry, whose aliases follow MLflow's."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from tempfile import mkdtemp

from msgspec import Struct

from model.errors import ArtefactError, ModelError
from model.registry.artefact import MANIFEST, MAX_BYTES, SIGNATURE, Manifest, read_manifest
from model.registry.errors import (
    AliasMoved,
    InvalidName,
    RegistryAccessDenied,
    RegistryUnavailable,
    UnknownModel,
    VersionExists,
)
from model.registry.files import FileRegistry
from model.registry.mlflow.server import MlflowServer, NotFound, RegisteredModel
from model.registry.state import ModelState, check_name, is_name
from model.signing.folder import verify_folder
from model.signing.keys import PublicKey
from storage.folders import lock_folder

RETRY_S = 60.0
"""Delay before a rejected version is downloaded again, in case it has been replaced."""

_DOWNLOAD = ".download-"
_MAX_DOCUMENT_BYTES = 8 << 20  # a manifest or a signature

# Takes the new version and the current version of each alias; None for no version. Raises AliasMoved.
MoveAliases = Callable[[Mapping[str, str | None], Mapping[str, str | None]], object]


class Pull(Struct, frozen=True):
    """The new version of each alias that a pull moved, None if it was removed, and the error of each rejected alias."""

    moved: Mapping[str, str | None]
    refused: Mapping[str, ModelError]


class Mirror:
    """Keeps the aliases of `model` in the FileRegistry in `folder` equal to those in MLflow.

    With `key`, each version must be signed. `move` moves aliases. `record_moves` is called during each pull, to record
    moves that are not recorded yet. The versions of the `served` aliases are copied first. Several processes may use
    the same folder.
    """

    def __init__(  # noqa: PLR0913  (its dependencies)
        self,
        server: MlflowServer,
        folder: Path,
        *,
        model: str,
        key: PublicKey | None,
        move: MoveAliases,
        record_moves: Callable[[], object] = lambda: None,
        served: Sequence[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._server = server
        self._folder = folder
        self._registry = FileRegistry(folder)
        self._model = model
        self._key = key
        self._move = move
        self._record_moves = record_moves
        self._served = served
        self._clock = clock
        self._refused: dict[tuple[str, str], tuple[float, ModelError]] = {}

    def pull(self) -> Pull:
        """Move the aliases, and copy the versions that are missing.

        Reads MLflow's aliases again after each attempt to copy a version, so that copying does not delay other moves.
        Raises RegistryUnavailable, RegistryAccessDenied, UnknownModel.
        """
        moved: dict[str, str | None] = {}
        refused: dict[tuple[str, str], ModelError] = {}
        while True:
            registered = self._server.read_model(self._model)
            state = self._read_state()
            moved |= self._move_aliases(registered, state)
            missing = self._list_missing(registered, state)
            for alias, number in missing:
                if refusal := self._find_refusal(registered, alias, number):
                    refused[alias, number] = refusal
            wanted = next((each for each in missing if each not in refused), None)
            if wanted is None:
                return Pull(moved, {alias: refused[alias, number] for alias, number in missing})
            try:
                self._add_version(registered, *wanted)
            except ModelError as error:  # another alias may still be followed
                refused[wanted] = error

    def _move_aliases(self, registered: RegisteredModel, state: ModelState) -> Mapping[str, str | None]:
        """Move each alias whose version is mirrored, and remove aliases that MLflow lacks. Returns the moved ones."""
        targets: dict[str, str | None] = {alias: None for alias in state.aliases if alias not in registered.aliases}
        for alias, number in registered.aliases.items():
            version = _find_mirrored(state, registered, number)
            if version is not None and is_name(alias):
                targets[alias] = version
        moved = {alias: version for alias, version in targets.items() if state.aliases.get(alias) != version}
        try:
            if moved:
                self._move(moved, {alias: state.aliases.get(alias) for alias in moved})
        except AliasMoved:  # another process moved it, and may have read MLflow later
            moved = {}
        self._record_moves()
        return moved

    def _list_missing(self, registered: RegisteredModel, state: ModelState) -> list[tuple[str, str]]:
        """Return the aliases whose versions are not mirrored, with MLflow's version numbers; served aliases first."""
        served = [alias for alias in self._served if alias in registered.aliases]
        others = [alias for alias in registered.aliases if alias not in served]
        return [
            (alias, registered.aliases[alias])
            for alias in served + others
            if not is_name(alias) or _find_mirrored(state, registered, registered.aliases[alias]) is None
        ]

    def _find_refusal(self, registered: RegisteredModel, alias: str, number: str) -> ModelError | None:
        """Return why an alias cannot be followed now: its name is invalid, or its version was rejected recently."""
        try:
            check_name(alias)
        except InvalidName as error:
            return error
        retry_at, refusal = self._refused.get(_tag(registered, number), (0.0, None))
        recent = refusal is not None and self._clock() < retry_at and self._waits_for_retry(alias, refusal)
        return refusal if recent else None

    def _waits_for_retry(self, alias: str, error: ModelError) -> bool:
        """Whether to wait for RETRY_S before the next attempt to copy the version of the alias.

        After an outage, the version of a served alias is tried again on the next pull.
        """
        return alias not in self._served or not isinstance(error, RegistryUnavailable | RegistryAccessDenied)

    def _read_state(self) -> ModelState:
        try:
            return self._registry.read(self._model)
        except UnknownModel:
            return ModelState()

    def _add_version(self, registered: RegisteredModel, alias: str, number: str) -> None:
        """Copy the version with MLflow's `number`, and tag the copy."""
        tag, created = _tag(registered, number)
        try:
            version_name = self._copy(number)
        except ModelError as error:
            if self._waits_for_retry(alias, error):
                self._refused[tag, created] = self._clock() + RETRY_S, error.with_traceback(None)
            raise
        self._registry.tag(self._model, version_name, {tag: created})

    def _copy(self, number: str) -> str:
        """Copy a version into the registry, unless it is already there. Returns its name."""
        try:
            source = self._server.find_artifacts(self._model, number)
            self._folder.mkdir(parents=True, exist_ok=True)
            with lock_folder(self._folder):
                for leftover in self._folder.glob(f"{_DOWNLOAD}*"):  # of a process that was killed
                    shutil.rmtree(leftover)
                target = Path(mkdtemp(prefix=_DOWNLOAD, dir=self._folder))
                try:
                    return self._add(number, self._download(source, target), target)
                except ArtefactError as error:  # its message names the folder, which is temporary
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
            raise ArtefactError(
                f"The artefact is of the model {manifest.name!r}. Publish it as a registered model of this name."
            )
        size = sum(entry.bytes for entry in manifest.files.values())
        if size > MAX_BYTES:
            raise ArtefactError(f"The artefact's files have {size} bytes in total; the limit is {MAX_BYTES}.")
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


def _tag(registered: RegisteredModel, number: str) -> tuple[str, str]:
    """Return the name and the value of the tag that identifies a mirrored version."""
    return f"mlflow.{number}", str(registered.created)


def _find_mirrored(state: ModelState, registered: RegisteredModel, number: str) -> str | None:
    """Return the mirrored version with MLflow's `number`, or None if it must be copied."""
    tag, created = _tag(registered, number)
    return next((version.version for version in state.versions.values() if version.tags.get(tag) == created), None)
