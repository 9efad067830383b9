"""The protocol of the places where sealed images are."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Protocol

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Blobs(Protocol):
    """Objects by owner and name, which are both UUIDs. Every method raises ImageStoreUnavailable."""

    def write(self, owner: str, name: str, data: bytes) -> None:
        """Store an object. An error leaves nothing of it."""

    def read(self, owner: str, name: str) -> bytes | None:
        """Return the object, or None if there is none."""

    def list_owners(self) -> Sequence[str]: ...

    def measure(self) -> int:
        """Return how many bytes all objects take, without a list of them in memory."""

    def list(self, owner: str) -> Iterator[str]:
        """Yield the names of the owner's objects, sorted; those that are not complete have names that are no UUIDs."""

    def remove(self, owner: str, names: Sequence[str]) -> None:
        """Remove those of the objects that exist."""


def is_uuid(text: str) -> bool:
    """Whether the text can be an owner or a name; any other text could name a path."""
    return _UUID.fullmatch(text) is not None
