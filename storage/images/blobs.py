"""The protocol of the places where sealed images are, and opening the one that a URL names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import parse_qs, unquote

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Blob:
    """A stored object of `size` bytes."""

    name: str
    size: int


class Blobs(Protocol):
    """Objects by owner and name, which are both UUIDs. Every method raises ImageStoreUnavailable."""

    def write(self, owner: str, name: str, data: bytes) -> None:
        """Store an object. An error leaves nothing of it."""

    def read(self, owner: str, name: str) -> bytes | None:
        """Return the object, or None if there is none."""

    def list_owners(self) -> Sequence[str]: ...

    def list(self, owner: str) -> Iterator[Blob]:
        """Yield the owner's objects, sorted by name."""

    def remove(self, owner: str, names: Sequence[str]) -> None:
        """Remove those of the objects that exist."""


def is_uuid(text: str) -> bool:
    """Whether the text can be an owner or a name; any other text could name a path."""
    return _UUID.fullmatch(text) is not None


def open_blobs(url: str) -> Blobs:
    """Open `file://FOLDER` or `s3://BUCKET[/PREFIX][?region=REGION]` without connecting.

    The folder's path is absolute. Raises ImportError where boto3 is not installed.
    """
    scheme, _, rest = url.partition("://")
    if scheme == "file":
        from storage.images.folder import ImageFolder

        return ImageFolder(Path(rest))
    from storage.images.bucket import ImageBucket

    path, _, query = rest.partition("?")
    bucket, _, prefix = path.partition("/")
    return ImageBucket(bucket, unquote(prefix.strip("/")), parse_qs(query).get("region", [None])[0])
