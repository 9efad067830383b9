"""What the watchtower refuses, as classes with a stable code.

    MonitoringError
    └── AuditUnavailable   audit_unavailable

Transports map these classes; nothing here knows an HTTP status, and no message holds a secret.
"""

from __future__ import annotations

from typing import ClassVar


class MonitoringError(Exception):
    """Base of the room's errors; its message is one sentence that says what to do."""

    code: ClassVar[str]


class AuditUnavailable(MonitoringError):
    """What must not happen unrecorded cannot be recorded now."""

    code = "audit_unavailable"

    def __init__(self) -> None:
        super().__init__("The record of access cannot be written or read. Check the database, or try again later.")
