"""The protocol of the stores that hold sealed images."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Protocol

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Blobs(Protocol):
    """Objects by owner and name, both of them UUIDs. Every method raises ImageStoreUnavailable."""

    def write(self, owner: str, name: str, data: bytes) -> None:
        """Store the whole object or, after an error, nothing."""

    def read(self, owner: str, name: str) -> bytes | None:
        """Return the object, or None if there is none."""

    def list_owners(self) -> Sequence[str]: ...

    def measure(self) -> int:
        """Return the total size in bytes, without holding a list of all objects in memory."""

    def list(self, owner: str) -> Iterator[str]:
        """Yield the names of the owner's objects, sorted. The names of incomplete objects are not UUIDs."""

    def remove(self, owner: str, names: Sequence[str]) -> None:
        """Remove the named objects, and ignore names that do not exist."""


def is_uuid(text: str) -> bool:
    """Whether the text is a valid owner or name. Other text could be a path to another file."""
    return _UUID.fullmatch(text) is not None
