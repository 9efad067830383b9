"""Store, read and remove images. An image has the name of its prediction: a UUIDv7, which sorts by time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from storage.images.blobs import Blobs, is_uuid
from storage.images.sealing import ImageSeal

_BATCH = 1000  # images in one removal
_CLOCK_TOLERANCE = timedelta(days=1)  # an id further in the future comes from a clock that was wrong
_WRITE_LIMIT = timedelta(hours=1)  # an image that is still incomplete after this time was left by a failed process


class ImageArchive:
    """Images by owner (the id of a user) and prediction. Every method raises ImageStoreUnavailable."""

    def __init__(self, blobs: Blobs, seal: ImageSeal) -> None:
        self._blobs = blobs
        self._seal = seal

    def keep(self, owner: str, prediction: str, image: bytes) -> int:
        """Encrypt and store an image; returns its stored size in bytes."""
        sealed = self._seal.seal(owner, prediction, image)
        self._blobs.write(owner, prediction, sealed)
        return len(sealed)

    def read(self, owner: str, prediction: str) -> bytes | None:
        """Return the image, or None if none was kept. Raises ImageUnreadable."""
        if not is_uuid(owner) or not is_uuid(prediction):
            return None
        sealed = self._blobs.read(owner, prediction)
        return None if sealed is None else self._seal.unseal(owner, prediction, sealed)

    def erase(self, owner: str) -> int:
        """Remove all images of an owner; returns their number. Only users, whose ids are UUIDs, have images."""
        return self._remove(owner, self._blobs.list(owner)) if is_uuid(owner) else 0

    def remove_old(self, owner: str, before: datetime) -> int:
        """Remove an owner's images of predictions made before that time; returns their number.

        Incomplete images are removed after an hour: until then, another process may be writing them. Images with a time
        in the future are removed, too, because their age is unknown.
        """
        return self._remove(owner, _select_old(self._blobs.list(owner), before))

    def discard(self, owner: str, prediction: str) -> None:
        """Remove one image, if it exists."""
        self._blobs.remove(owner, [prediction])

    def list_owners(self) -> Sequence[str]:
        return self._blobs.list_owners()

    def measure(self) -> int:
        """Return the stored size of all images in bytes."""
        return self._blobs.measure()

    def _remove(self, owner: str, names: Iterable[str]) -> int:
        removed, batch = 0, list[str]()
        for name in names:
            batch.append(name)
            if len(batch) == _BATCH:
                self._blobs.remove(owner, batch)
                removed, batch = removed + len(batch), []
        if batch:
            self._blobs.remove(owner, batch)
        return removed + len(batch)


def is_older(prediction: str, before: datetime) -> bool:
    """Whether the prediction was made before that time; true for names that are not UUIDs."""
    return not is_uuid(prediction) or _read_milliseconds(prediction) < before.timestamp() * 1000


def _read_milliseconds(prediction: str) -> int:
    """Return the time of a UUIDv7 in milliseconds since 1970 (RFC 9562, section 5.7)."""
    return UUID(prediction).int >> 80


def _select_old(names: Iterable[str], before: datetime) -> Iterator[str]:
    """Select images made before that time or in the future, and incomplete images that are over an hour old."""
    now = datetime.now(UTC)
    abandoned_before, impossible = now - _WRITE_LIMIT, now + _CLOCK_TOLERANCE
    for name in names:
        prediction = name.removeprefix(".")
        limit = before if name == prediction else abandoned_before
        if is_older(prediction, limit) or not is_older(prediction, impossible):
            yield name
