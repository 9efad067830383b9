"""What the storage package raises.

    StorageError
    └── DatabaseUnavailable   database_unavailable

Transports map these classes; nothing here knows an HTTP status, and no message contains a secret.
"""

from __future__ import annotations

from typing import ClassVar


class StorageError(Exception):
    """Base of this package's errors; the message is one sentence that says what to do."""

    code: ClassVar[str]


class DatabaseUnavailable(StorageError):
    """The database cannot be reached, or its URL names an unsupported kind."""

    code = "database_unavailable"
