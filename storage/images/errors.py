"""The errors of the image store.

StorageError
└── ImageStoreError
    ├── ImageStoreUnavailable   image_store_unavailable
    └── ImageUnreadable         image_unreadable
"""

from __future__ import annotations

from storage.errors import StorageError


class ImageStoreError(StorageError):
    """Base of the image store's errors."""


class ImageStoreUnavailable(ImageStoreError):
    """The folder or the bucket cannot be used."""

    code = "image_store_unavailable"

    def __init__(self, reason: str) -> None:
        super().__init__(f"IMAGES__URL: the image store cannot be used: {reason}. Correct this, or try again.")


class ImageUnreadable(ImageStoreError):
    """A kept image was changed, is incomplete, or was encrypted with a key that is not configured."""

    code = "image_unreadable"
