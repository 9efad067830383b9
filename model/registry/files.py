"""A registry of models in a folder.

    ROOT/NAME/state.json                 the versions, aliases and tags; replaced atomically
    ROOT/NAME/versions/VERSION/          an artefact, complete once the state lists it
    ROOT/NAME/.lock                      held by the process that changes the state

Readers need no lock, because each file appears complete or not at all. A writer that crashes leaves at most a folder
that the state does not list, which the next `add` removes or sets aside, and a move that the ledger may lack. Registry
and ledger cannot change in one transaction, so the state keeps such moves until `record_moves` has recorded them. Other
files and folders are ignored.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING

from model.errors import ArtefactError, DigestMismatch
from model.registry.artefact import MANIFEST, SIGNATURE, Manifest, list_present, read_manifest, read_verified
from model.registry.errors import AliasMoved, RegistryUnavailable, UnknownModel, VersionExists
from model.registry.moves import AliasMove
from model.registry.state import ModelState, Version, check_name, is_name, parse_state, serialise_state
from model.signing.required import verify_required
from storage.folders import copy_access, lock_folder, sync_folder

if TYPE_CHECKING:
    from model.signing.keys import PublicKey

# Differs between any two states of a model, because each change replaces the file.
StateStamp = tuple[int, int, int]

STATE = "state.json"
VERSIONS = "versions"
_INCOMING = ".incoming-"
_FILE_MODE = 0o664


class FileRegistry:
    """The models in the folder `root`. Several processes and threads may use it at the same time.

    Every method raises RegistryUnavailable when the folder cannot be read or written, and InvalidName for a name that
    is not a valid folder name.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def list_models(self) -> list[str]:
        """Return the names of the models that have a version, in alphabetical order."""
        with _reporting_os_errors(self.root):
            if not self.root.is_dir():
                return []
            names = (path.parent.name for path in self.root.glob(f"*/{STATE}"))
            return sorted(name for name in names if is_name(name))

    def read(self, model: str) -> ModelState:
        """Return the model's versions, aliases and tags. Raises UnknownModel."""
        home = self.root / check_name(model)
        with _reporting_os_errors(self.root):
            try:
                _check_writers(self.root, home)
                return parse_state((home / STATE).read_bytes())
            except FileNotFoundError:
                raise _unknown(model) from None

    def read_stamp(self, model: str) -> StateStamp:
        """Return a stamp that identifies the current state, without reading the state. Raises UnknownModel."""
        path = self.root / check_name(model) / STATE
        with _reporting_os_errors(self.root):
            try:
                status = path.stat()
            except FileNotFoundError:
                raise _unknown(model) from None
        return status.st_ino, status.st_mtime_ns, status.st_size

    def list_folders(self) -> list[Path]:
        """Return the artefact folders of all versions of all models."""
        return [
            self.root / model / VERSIONS / version
            for model in self.list_models()
            for version in self.read(model).versions
        ]

    def find_folder(self, model: str, version: str) -> Path:
        """Return the artefact folder of a version. Raises UnknownModel, UnknownVersion, DigestMismatch.

        Only the manifest is verified here; the loader of the artefact verifies each file that it opens.
        """
        listed = self.read(model).find(version)
        folder = self.root / model / VERSIONS / listed.version
        if _hash_manifest(folder) != listed.manifest_sha256:
            raise DigestMismatch(f"{folder / MANIFEST} has changed since the version was added. Import it again.")
        return folder

    def add(self, folder: Path, key: PublicKey | None = None) -> Version:
        """Copy an artefact into the registry as the version in its manifest.

        Files for training may be absent. With `key`, the artefact must be signed. Raises ArtefactError, DigestMismatch,
        VersionExists, and the errors of signatures.
        """
        manifest = read_manifest(folder, verify_required(folder, key))
        model, name = check_name(manifest.name), check_name(manifest.version)

        def store(state: ModelState, home: Path) -> ModelState:
            if name in state.versions:
                raise VersionExists(f"{model} {name} already exists. A version never changes: choose another one.")
            _remove_incomplete(home / VERSIONS)
            digest = _store_artefact(folder, manifest, home / VERSIONS / name)
            return state.add(Version(name, digest, datetime.now(UTC).isoformat(timespec="seconds")))

        return self._change(model, store, create=True).find(name)

    def move_aliases(
        self,
        model: str,
        targets: Mapping[str, str | None],
        *,
        who: str,
        why: str,
        expected: Mapping[str, str | None] | None = None,
        decision: str | None = None,
    ) -> ModelState:
        """Point each alias to a version, or remove it for None, all at once. Returns the new state.

        Raises AliasMoved if an alias does not point to its `expected` version, AliasUnchanged if `decision` equals the
        last one, UnknownModel and UnknownVersion; the state is unchanged after an error.
        """

        def move(state: ModelState, _: Path) -> ModelState:
            for alias, version in (expected or {}).items():
                if state.aliases.get(alias) != version:
                    raise AliasMoved(alias, state.aliases.get(alias), version)
            return state.move_aliases(targets, who, why, decision)

        return self._change(model, move)

    def record_moves(self, model: str, record: Callable[[AliasMove], object]) -> None:
        """Call `record` with each unrecorded move, in order, while no alias can be moved.

        After an interruption, a move may be recorded twice, with the same id. Raises UnknownModel, and what
        `record` raises.
        """
        if not self.read(model).unrecorded:  # do not lock: a gateway may lack write permission here
            return

        def record_all(state: ModelState, _: Path) -> ModelState:
            for move in state.unrecorded:
                record(move)
            return state.without_unrecorded()

        self._change(model, record_all)

    def tag(self, model: str, version: str, tags: Mapping[str, str | None]) -> ModelState:
        """Set tags of a version; the value None removes a tag. Raises UnknownModel, UnknownVersion."""
        return self._change(model, lambda state, _: state.tag(version, tags))

    def _change(
        self, model: str, change: Callable[[ModelState, Path], ModelState], *, create: bool = False
    ) -> ModelState:
        home = self.root / check_name(model)
        with _reporting_os_errors(self.root):
            if create:
                self.root.mkdir(parents=True, exist_ok=True)
                for folder in (home, home / VERSIONS):
                    _make_folder(folder)
            elif not home.is_dir():
                self.read(model)
            with lock_folder(home):
                state = ModelState() if create and not (home / STATE).exists() else self.read(model)
                changed = change(state, home)
                replace_file(home / STATE, serialise_state(changed))
                return changed


def _check_writers(*folders: Path) -> None:
    """Raise RegistryUnavailable if every user of the machine could move an alias."""
    for folder in folders:
        if folder.stat().st_mode & stat.S_IWOTH:
            raise RegistryUnavailable(
                f"Every user of this machine can write to {folder} and so replace the model. Run `chmod o-w {folder}`."
            )


def _unknown(model: str) -> UnknownModel:
    return UnknownModel(f"There is no model {model!r}. Import one of its versions.")


def _store_artefact(source: Path, manifest: Manifest, target: Path) -> str:
    """Copy the files that the manifest lists, and the signature, into `target`; return the manifest's SHA-256."""
    incoming = Path(mkdtemp(prefix=_INCOMING, dir=target.parent))
    try:
        _copy_parent_access(incoming)
        like = incoming.stat()
        for filename in list_present(source, manifest):
            _write_durably(incoming / filename, read_verified(source, manifest, filename), like)
        document = (source / MANIFEST).read_bytes()
        _write_durably(incoming / MANIFEST, document, like)
        if (source / SIGNATURE).exists():
            _write_durably(incoming / SIGNATURE, (source / SIGNATURE).read_bytes(), like)
        copied = read_manifest(incoming)
        if (copied.full_name, copied.files) != (manifest.full_name, manifest.files):
            raise ArtefactError(f"{source / MANIFEST} changed while it was read. Import it again.")
        sync_folder(incoming)
        _set_aside(target)
        incoming.rename(target)
    except BaseException:
        shutil.rmtree(incoming, ignore_errors=True)
        raise
    sync_folder(target.parent)
    return hashlib.sha256(document).hexdigest()


def _set_aside(target: Path) -> None:
    """Move away a folder that a crashed writer left at the path of a version; the next `add` removes it."""
    if os.path.lexists(target):
        target.rename(Path(mkdtemp(prefix=_INCOMING, dir=target.parent)) / target.name)


def _hash_manifest(folder: Path) -> str:
    try:
        return hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
    except OSError as error:
        raise ArtefactError(f"{folder / MANIFEST} cannot be read. Restore it from a backup.") from error


def _remove_incomplete(versions: Path) -> None:
    """Remove incomplete copies of crashed writers, and folders that were set aside."""
    for folder in versions.glob(f"{_INCOMING}*"):
        shutil.rmtree(folder)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir()
    except FileExistsError:  # perhaps made by another writer
        return
    _copy_parent_access(folder)


def _copy_parent_access(folder: Path) -> None:
    """Give the folder the permissions of its parent, regardless of this process's umask."""
    like = folder.parent.stat()
    copy_access(folder, like, stat.S_IMODE(like.st_mode) & ~stat.S_IWOTH)


def replace_file(path: Path, data: bytes) -> None:
    """Replace the file atomically and durably; keep its mode and, if permitted, its group.

    Raises OSError.
    """
    temporary = path.with_name(f".{path.name}.new")  # only the holder of the lock writes it
    temporary.unlink(missing_ok=True)
    _write_durably(temporary, data, (path if path.exists() else path.parent).stat())
    temporary.replace(path)
    sync_folder(path.parent)


def _write_durably(path: Path, data: bytes, like: os.stat_result) -> None:
    """Write a file, with the owner, group and mode of `like` as far as permitted, and sync it to disk."""
    with path.open("wb") as file:
        copy_access(file.fileno(), like, stat.S_IMODE(like.st_mode) & _FILE_MODE)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _reporting_os_errors(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RegistryUnavailable(
            f"The registry in {root} cannot be used: {error.strerror or error}. Check the folder and its permissions."
        ) from error
