"""Watch a model in the registry at the cost of one system call for each check."""

from __future__ import annotations

from model.registry.files import FileRegistry, StateStamp
from model.registry.reference import ModelReference
from model.registry.state import ModelState


class StateWatch:
    """Returns the state of a model, and reads it only if it has changed. Not thread-safe."""

    def __init__(self, registry: FileRegistry, model: str) -> None:
        self._registry = registry
        self._model = model
        self._seen: tuple[StateStamp, ModelState] | None = None

    def read(self) -> ModelState:
        """Return the current state. Raises UnknownModel, RegistryUnavailable."""
        stamp = self._registry.read_stamp(self._model)
        if self._seen is None or self._seen[0] != stamp:
            self._seen = None  # if the read fails, the next call tries again
            self._seen = stamp, self._registry.read(self._model)
        return self._seen[1]


class AliasWatch:
    """Returns the version that an alias points to. Not thread-safe."""

    def __init__(self, registry: FileRegistry, reference: ModelReference) -> None:
        self._state = StateWatch(registry, reference.model)
        self._alias = reference.alias

    def find_version(self) -> str:
        """Return the version. Raises UnknownModel, UnknownAlias, RegistryUnavailable."""
        return self._state.read().find_alias(self._alias)
