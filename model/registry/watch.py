"""Watching an alias at the cost of one system call for each look."""

from __future__ import annotations

from model.registry.files import FileRegistry, StateStamp
from model.registry.reference import ModelReference


class AliasWatch:
    """Says which version an alias names. Reads the state of the model only after it has changed.

    For one thread at a time.
    """

    def __init__(self, registry: FileRegistry, reference: ModelReference) -> None:
        self._registry = registry
        self._reference = reference
        self._seen: tuple[StateStamp, str] | None = None

    def find_version(self) -> str:
        """Raises UnknownModel, UnknownAlias, RegistryUnavailable."""
        stamp = self._registry.read_stamp(self._reference.model)
        if self._seen is None or self._seen[0] != stamp:
            self._seen = None  # an error is raised again until the state changes or can be read
            self._seen = stamp, self._registry.read(self._reference.model).find_alias(self._reference.alias)
        return self._seen[1]
