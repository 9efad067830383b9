"""What the watchtower refuses, as classes with a stable code.

    MonitoringError
    ├── AuditUnavailable     audit_unavailable
    ├── LedgerUnavailable    ledger_unavailable
    ├── LedgerFull           ledger_full
    ├── LedgerInUse          ledger_in_use         command line only
    ├── LedgerDamaged        ledger_damaged        command line only
    ├── PredictionNotFound   prediction_not_found
    ├── BadLedgerKey         bad_ledger_key        start-up and command line only
    └── BadExport            bad_export            command line only

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


class LedgerUnavailable(MonitoringError):
    """The ledger's tables cannot be reached; what is answered meanwhile waits in the spool."""

    code = "ledger_unavailable"

    def __init__(self) -> None:
        super().__init__("The prediction ledger cannot be read now. Check the database, or try again later.")


class LedgerFull(MonitoringError):
    """Neither the database nor the spool takes an entry: what cannot be recorded is not answered."""

    code = "ledger_full"
    retry_after_s = 5

    def __init__(self) -> None:
        super().__init__("Predictions cannot be recorded now, so none is answered. Try again later.")


class LedgerInUse(MonitoringError):
    """What was removed is out of the tables, but somebody who reads an older state keeps its text in SQLite's files."""

    code = "ledger_in_use"

    def __init__(self) -> None:
        super().__init__(
            "The entries are removed, but their text is still in the database's files: another program is reading. "
            "Run this again when no export, check or backup is running."
        )


class LedgerDamaged(MonitoringError):
    """What is to be removed is not what was written: a signature of ours must not make up for that."""

    code = "ledger_damaged"

    def __init__(self, problem: str) -> None:
        super().__init__(f"{problem}, so it is left as it is. `atalaya ledger verify` says more.")


class PredictionNotFound(MonitoringError):
    """No prediction of that id that the caller may see."""

    code = "prediction_not_found"

    def __init__(self) -> None:
        super().__init__("There is no such prediction of yours. Check the id, or list yours at /v1/predictions.")


class BadLedgerKey(MonitoringError):
    code = "bad_ledger_key"

    def __init__(self) -> None:
        super().__init__(
            "A ledger key is 32 bytes in base64. `atalaya secrets init` makes one, and `atalaya ledger key` shows the "
            "public half."
        )


class BadExport(MonitoringError):
    """A file that is no export of a ledger; the message says where it is wrong."""

    code = "bad_export"
