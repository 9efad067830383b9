"""Verifies the chains of the writers, one after the other."""

from __future__ import annotations

from msgspec import Struct

from monitoring.chains.anchors import GENESIS
from monitoring.chains.signing import Verifier
from monitoring.ledger.entries import Erasure, Head, LedgerEntry, Stump, sanitize_name
from monitoring.ledger.payloads import find_payload_problem
from monitoring.ledger.records import EntryRecord, WindowStart
from monitoring.ledger.verification.checkpoints import CheckpointVerification
from monitoring.ledger.verification.report import LedgerReport


class _Position(Struct):
    """The position of the verification in one chain."""

    writer: str
    seq: int = 0
    hash: str = GENESIS
    id: str = ""
    begun: bool = False
    ended: bool = False
    claimed: bool = False  # a checkpoint names the last entry


class ChainVerification:
    def __init__(self, report: LedgerReport, verifier: Verifier, checkpoints: CheckpointVerification) -> None:
        self._report = report
        self._verifier = verifier
        self._checkpoints = checkpoints
        self._position: _Position | None = None
        self._last_writer = ""

    def check_start(self, start: Stump | WindowStart) -> None:
        """Start a chain after the entry that a stump or a window names."""
        position = self._enter_chain(start.writer)
        if position.begun:
            self._report.add_problem(f"The chain of {sanitize_name(start.writer)} begins twice.")
        position.seq, position.hash, position.begun = start.seq, start.hash, True
        self._check_claim(position)

    def check_entry(self, record: EntryRecord) -> None:
        entry = record.entry
        position = self._enter_chain(entry.writer)
        if position.ended:
            self._report.add_problem(f"{_describe(entry)} was added after the head of its chain.")
        if entry.seq != position.seq + 1:
            self._report.add_problem(
                f"Entry {position.seq + 1} of {sanitize_name(entry.writer)} is missing: entry {entry.seq} comes next."
            )
        elif entry.hash != entry.compute_hash(position.hash):
            self._report.add_problem(
                f"{_describe(entry)} was changed, or does not follow entry {position.seq}: its hash does not match."
            )
        if entry.id <= position.id:
            self._report.add_problem(
                f"{_describe(entry)} does not come after {sanitize_name(position.id)}: ids must ascend."
            )
        position.seq, position.hash, position.id, position.begun = entry.seq, entry.hash, entry.id, True
        self._check_payload(record)
        self._check_claim(position)
        self._report.entries += 1

    def check_head(self, head: Head) -> None:
        position, writer = self._enter_chain(head.writer), sanitize_name(head.writer)
        name = f"The head of {writer}"
        if not position.begun:
            self._check_claim(position)
        if position.ended:
            self._report.add_problem(f"{name} is repeated.")
        position.ended = True
        self._report.check_signature(self._verifier, name, head.statement(), head.key, head.signature)
        if head.seq > position.seq:
            self._report.add_problem(
                f"Entry {position.seq + 1} of {writer} is missing: its chain ends with {head.seq}."
            )
        elif head.seq < position.seq:
            self._report.add_problem(f"Entry {head.seq + 1} of {writer} was added: its chain ends with {head.seq}.")
        elif head.hash != position.hash:
            self._report.add_problem(f"Entry {head.seq} of {writer} was replaced: the head names another hash.")
        if head.checkpoint > self._checkpoints.number and not self._report.header.has_window:
            self._report.add_problem(
                f"Checkpoint {self._checkpoints.number + 1} is missing: {name} names checkpoint {head.checkpoint}."
            )

    def leave_chain(self) -> None:
        """Check, after the last record of a chain, that a signed head or checkpoint names its end."""
        position, self._position = self._position, None
        if position is None or position.ended or (self._report.header.has_window and position.claimed):
            return
        self._report.add_problem(
            f"The chain of {sanitize_name(position.writer)} has no signed end: its head is missing, or it was added."
        )

    def _enter_chain(self, writer: str) -> _Position:
        """Return the position in the writer's chain, which may begin here."""
        if self._position is None or self._position.writer != writer:
            self.leave_chain()
            if writer <= self._last_writer:
                self._report.add_problem(f"The chain of {sanitize_name(writer)} is repeated, or out of order.")
            self._position, self._last_writer = _Position(writer), writer
            self._report.writers += 1
        return self._position

    def _check_payload(self, record: EntryRecord) -> None:
        if record.erasure is not None:
            self._check_erasure(record, record.erasure)
        elif record.payload is None:
            self._report.withheld += 1
            if not self._report.header.withholds_payloads:
                self._report.add_problem(
                    f"The payload of {_describe(record.entry)} is missing, and no erasure explains it."
                )
        elif (problem := find_payload_problem(record.entry, record.payload)) is not None:
            self._report.add_problem(f"The payload of {_describe(record.entry)} {problem}.")

    def _check_erasure(self, record: EntryRecord, erasure: Erasure) -> None:
        self._report.erased += 1
        name, entry = _describe(record.entry), record.entry
        statement = erasure.statement(entry.id, entry.commitment)
        self._report.check_signature(
            self._verifier, f"The erasure of {name}", statement, erasure.key, erasure.signature
        )
        if record.payload is not None:
            self._report.add_problem(f"{name} was erased, but has a payload.")

    def _check_claim(self, position: _Position) -> None:
        position.claimed = self._checkpoints.check_claim(position.writer, position.seq, position.hash)


def _describe(entry: LedgerEntry) -> str:
    return f"entry {entry.seq} of {sanitize_name(entry.writer)} ({sanitize_name(entry.id)})"
