"""The errors of the monitoring package, each with a stable code.

    MonitoringError
    ├── AuditUnavailable     audit_unavailable
    ├── AuditDamaged         audit_damaged         command line only
    ├── LedgerUnavailable    ledger_unavailable
    ├── LedgerFull           ledger_full
    ├── LedgerInUse          ledger_in_use         command line only
    ├── LedgerDamaged        ledger_damaged        command line only
    ├── PredictionNotFound   prediction_not_found
    ├── PredictionErased     prediction_erased
    ├── PredictionPruned     prediction_pruned
    ├── NothingToLabel       nothing_to_label
    ├── TooManyLabels        too_many_labels
    ├── ModelNotRecorded     model_not_recorded
    ├── BadLedgerKey         bad_ledger_key        start-up and command line only
    ├── LedgerKeyMissing     ledger_key_missing    command line and erasures in the background
    └── BadExport            bad_export            command line only

Transports map these classes to responses. No message contains a secret.
"""

from __future__ import annotations

from typing import ClassVar


class MonitoringError(Exception):
    """Base of this package's errors; the message is one sentence that says what to do."""

    code: ClassVar[str]


class AuditUnavailable(MonitoringError):
    """The audit log cannot be written or read; requests that must be recorded are rejected."""

    code = "audit_unavailable"

    def __init__(self) -> None:
        super().__init__("The audit log cannot be written or read. Check the database, or try again later.")


class AuditDamaged(MonitoringError):
    """Entries to be removed do not verify. They are kept, because removing them would hide what was changed."""

    code = "audit_damaged"

    def __init__(self, problem: str) -> None:
        super().__init__(
            f"{problem} The remaining entries were kept. Compare the audit log with an export that is kept elsewhere."
        )


class LedgerUnavailable(MonitoringError):
    """The database of the ledger is unavailable; new entries are spooled."""

    code = "ledger_unavailable"

    def __init__(self) -> None:
        super().__init__("The prediction ledger is unavailable. Check the database, or try again later.")


class LedgerFull(MonitoringError):
    """Neither the database nor the spool accepts an entry; a prediction that cannot be recorded is not returned."""

    code = "ledger_full"
    retry_after_s = 5

    def __init__(self) -> None:
        super().__init__("Predictions cannot be recorded at the moment, so none is returned. Try again later.")


class LedgerInUse(MonitoringError):
    """Rows were deleted, but a reader of an older snapshot keeps their text in SQLite's files."""

    code = "ledger_in_use"

    def __init__(self) -> None:
        super().__init__(
            "The entries are removed, but their text is still in the database's files, because another program is "
            "reading. Run this again when no export, verification or backup is running."
        )


class LedgerDamaged(MonitoringError):
    """Rows to be removed had been changed. They are kept, because a signed stump or erasure would hide the change."""

    code = "ledger_damaged"

    def __init__(self, problem: str) -> None:
        super().__init__(f"{problem}, so it was kept. Run `atalaya ledger verify` for details.")


class PredictionNotFound(MonitoringError):
    """There is no prediction with that id that the caller may read."""

    code = "prediction_not_found"

    def __init__(self) -> None:
        super().__init__("You have no prediction with this id. Check the id, or list yours at /v1/predictions.")


class PredictionErased(MonitoringError):
    """The payload of the prediction was erased."""

    code = "prediction_erased"

    def __init__(self) -> None:
        super().__init__("This prediction was erased from the ledger and can no longer be labelled.")


class PredictionPruned(MonitoringError):
    """The id was issued before the oldest entry that pruning has kept."""

    code = "prediction_pruned"

    def __init__(self) -> None:
        super().__init__(
            "Predictions of that time have been removed from the ledger and can no longer be labelled. Label "
            "predictions within LEDGER__KEEP_DAYS days."
        )


class NothingToLabel(MonitoringError):
    """The entry records a request that was rejected without a prediction."""

    code = "nothing_to_label"

    def __init__(self) -> None:
        super().__init__("This request was rejected without a prediction, so there is nothing to label. Check the id.")


class TooManyLabels(MonitoringError):
    """The prediction already has the maximum number of labels; all of them stay visible."""

    code = "too_many_labels"

    def __init__(self, limit: int) -> None:
        super().__init__(f"This prediction already has the maximum of {limit} labels. Check the id.")


class ModelNotRecorded(MonitoringError):
    """The ledger has no prediction of the model or version since the requested time."""

    code = "model_not_recorded"

    def __init__(self, model: str) -> None:
        super().__init__(
            f"The ledger has no predictions of {model} from that period. Check the name, the version and the time."
        )


class BadLedgerKey(MonitoringError):
    """A key of the ledger is malformed."""

    code = "bad_ledger_key"

    def __init__(self) -> None:
        super().__init__(
            "A ledger key is 32 bytes in base64. `atalaya secrets init` generates one, and `atalaya ledger key` prints "
            "its public key."
        )


class LedgerKeyMissing(MonitoringError):
    """Payloads cannot be erased without a key, because a signed statement replaces each of them."""

    code = "ledger_key_missing"

    def __init__(self) -> None:
        super().__init__(
            "The ledger has predictions to erase, and signing their erasure needs LEDGER__SIGNING_KEY. Set it, and "
            "try again."
        )


class BadExport(MonitoringError):
    """A file is not an intact export of a ledger; the message names the first problem."""

    code = "bad_export"
