"""Verifies a ledger as a stream of records, from a database or an export."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from monitoring.chains.anchors import Anchor
from monitoring.chains.signing import Verifier
from monitoring.ledger.entries import CHECKPOINTS, Checkpoint, Head, Stump, sanitize_name
from monitoring.ledger.records import FORMAT, EntryRecord, Orphan, Record, StreamHeader, WindowStart
from monitoring.ledger.verification.chains import ChainVerification
from monitoring.ledger.verification.checkpoints import CheckpointVerification
from monitoring.ledger.verification.report import MAX_PROBLEMS, LedgerReport


def verify(records: Iterable[Record], verifier: Verifier, anchor: Anchor | None = None) -> LedgerReport:
    """Follow a stream to its end, or to MAX_PROBLEMS.

    Memory grows only with the number of writers and, for a window, of its checkpoints. The holder of the private key
    could write another history, and anyone with access to the database could restore an old copy of it: only `anchor`,
    a checkpoint noted earlier, exposes that.
    """
    verification = _StreamVerification(verifier, anchor)
    for record in records:
        verification.check_record(record)
        if len(verification.report.problems) >= MAX_PROBLEMS:
            return verification.report
    verification.check_end()
    return verification.report


class _StreamVerification:
    """Checks the header and the order of the records, and passes each to the part that checks its kind."""

    def __init__(self, verifier: Verifier, anchor: Anchor | None) -> None:
        self.report = LedgerReport()
        self._verifier = verifier
        self._checkpoints = CheckpointVerification(self.report, verifier, anchor)
        self._chains = ChainVerification(self.report, verifier, self._checkpoints)
        self._begun = False
        self._checks: dict[type, Callable[..., None]] = {
            StreamHeader: self._check_header,
            Stump: self._check_stump,
            Checkpoint: self._checkpoints.check_checkpoint,
            WindowStart: self._check_window_start,
            EntryRecord: self._chains.check_entry,
            Head: self._chains.check_head,
            Orphan: self._check_orphan,
        }

    def check_record(self, record: Record) -> None:
        if not self._begun and not isinstance(record, StreamHeader):
            self.report.add_problem("The header is missing: it is unknown what the stream should contain.")
        try:
            self._checks[type(record)](record)
        except (TypeError, ValueError, AttributeError):  # SQLite stores values of any type in any column
            self.report.add_problem(f"{_describe(record)} cannot be read: a value has the wrong type.")
        self._begun = True

    def check_end(self) -> None:
        if not self._begun:
            self.report.add_problem("The stream is empty: even the header is missing.")
        self._chains.leave_chain()
        self._checkpoints.check_end()

    def _check_header(self, header: StreamHeader) -> None:
        if self._begun:
            self.report.add_problem("There is a second header: two ledgers, or two parts of one, were joined.")
            return
        self.report.header = header
        if header.format != FORMAT:
            self.report.add_problem(f"The format {sanitize_name(header.format)} is unknown.")

    def _check_stump(self, stump: Stump) -> None:
        name = f"The stump of {sanitize_name(stump.writer)}"
        self.report.check_signature(self._verifier, name, stump.statement(), stump.key, stump.signature)
        if stump.writer == CHECKPOINTS:
            self._checkpoints.check_stump(stump, name)
        else:
            self._chains.check_start(stump)

    def _check_window_start(self, start: WindowStart) -> None:
        if not self.report.header.has_window:
            self.report.add_problem(
                f"The chain of {sanitize_name(start.writer)} is cut, but the header names no window."
            )
        self._chains.check_start(start)

    def _check_orphan(self, orphan: Orphan) -> None:
        writer = sanitize_name(orphan.writer)
        if orphan.kind == "claim":
            self.report.add_problem(
                f"The head of {writer} notes that a checkpoint names entry {orphan.seq}, but the checkpoints disagree."
            )
        elif orphan.kind == "label":
            self.report.add_problem(
                f"The row of the label in entry {orphan.seq} of {writer} contradicts the entry, or either is missing."
            )
        else:
            self.report.add_problem(f"A row ({orphan.kind}) belongs to no entry: number {orphan.seq} of {writer}.")


def _describe(record: Record) -> str:
    """Name a record whose fields may contain anything."""
    part = record.entry if isinstance(record, EntryRecord) else record
    names = [name for name in ("writer", "seq", "number", "id") if hasattr(part, name)]
    values = ", ".join(sanitize_name(f"{name} {getattr(part, name)}") for name in names)
    return f"A record ({type(part).__name__}: {values})"
