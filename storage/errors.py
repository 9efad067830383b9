"""The errors of the storage package.

    StorageError
    └── DatabaseUnavailable   database_unavailable

Transports map these classes to responses. No message contains a secret.
"""

from __future__ import annotations

from typing import ClassVar


class StorageError(Exception):
    """Base of this package's errors; the message is one sentence that says what to do."""

    code: ClassVar[str]


class DatabaseUnavailable(StorageError):
    """The database cannot be used, or its URL is not valid.

    `reason` is a sentence for the operator. It may name the server, the user or the file, so it is never sent to a
    client.
    """

    code = "database_unavailable"

    def __init__(self, message: str, *, reason: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason
