"""Verifies the audit log: every hash, the order of the entries, both ends of the chain, and an anchor."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from sqlalchemy import ColumnElement, Row, select
from sqlalchemy.ext.asyncio import AsyncConnection

from monitoring.audit.erasure import ERASED, ErasureCheck, is_erased
from monitoring.audit.events import PRUNED, AuditEntry, build_pruned_detail, read_entry, sanitize
from monitoring.audit.tables import audit_events, audit_head
from monitoring.chains.anchors import GENESIS, Anchor, AnchorSearch
from monitoring.chains.reports import VerificationReport
from monitoring.errors import AuditDamaged

_CHUNK = 1000


async def verify_chain(connection: AsyncConnection, anchor: Anchor | None = None) -> VerificationReport:
    """Follow the chain from its beginning to its head, up to the first problem; `connection` must see one snapshot.

    Someone with write access to the database could recompute every hash: only `anchor` exposes that.
    """
    heads = (await connection.execute(select(audit_head))).all()
    if len(heads) != 1:
        problem = f"The chain has {len(heads)} heads, not one." if heads else "The head of the chain is missing."
        return VerificationReport(problems=[problem])
    verification = _ChainVerification(heads[0], anchor)
    problems = []
    try:
        async for entry in _read_entries(connection):
            verification.check_entry(entry)
        verification.check_end()
    except _ChainBrokenError as error:
        problems.append(str(error))
    return VerificationReport(verification.entries, Anchor(verification.seq, verification.hash), problems)


async def verify_oldest(connection: AsyncConnection, head: Row[Any], last: int) -> str:
    """Verify the entries up to number `last`, and return the hash of that entry. The caller has locked `head`.

    They are verified like the whole chain, with the later records of prunings and erasures. Raises AuditDamaged.
    """
    verification = _ChainVerification(head, None)
    columns = audit_events.c
    try:
        async for entry in _read_entries(connection):
            if verification.seq == last:
                break
            verification.check_entry(entry)
        verification.check_not_ended(last)
        async for record in _read_entries(connection, columns.event.in_({PRUNED[0], ERASED[0]}), columns.seq > last):
            if record.is_intact():
                verification.pass_record(record)
        verification.check_records()
    except _ChainBrokenError as error:
        raise AuditDamaged(str(error)) from None
    return verification.hash


class _ChainBrokenError(Exception):
    """The message is a sentence that names the problem."""


class _ChainVerification:
    """The position of a verification in the chain. The methods raise _ChainBrokenError."""

    def __init__(self, head: Row[Any], anchor: Anchor | None) -> None:
        self.seq: int = head.pruned_seq
        self.hash: str = head.pruned_hash
        self.entries = 0
        self._head = head
        self._search = AnchorSearch(anchor)
        self._search.pass_link(self.seq, self.hash)
        self._pruned_detail = build_pruned_detail(0, GENESIS)
        self._erasures = ErasureCheck()

    def check_entry(self, entry: AuditEntry) -> None:
        """Check the next entry and advance to it."""
        self._check_anchor()
        if entry.seq != self.seq + 1:
            raise _ChainBrokenError(f"Entry {self.seq + 1} is missing: entry {entry.seq} follows entry {self.seq}.")
        name = f"Entry {entry.seq} ({sanitize(entry.id, 36)})"
        if not entry.is_intact():
            self._check_erased(entry, name)
        if entry.previous != self.hash:
            raise _ChainBrokenError(f"{name} does not follow entry {self.seq}: one of the two was replaced.")
        self.pass_record(entry)
        self.seq, self.hash = entry.seq, entry.hash
        self.entries += 1
        self._search.pass_link(self.seq, self.hash)

    def pass_record(self, entry: AuditEntry) -> None:
        """Remember what an intact entry records, if it is about a pruning or an erasure."""
        if (entry.event, entry.outcome) == PRUNED:
            self._pruned_detail = entry.to_dict()["detail"]
        elif (entry.event, entry.outcome) == ERASED:
            self._erasures.pass_record(entry)

    def check_end(self) -> None:
        """Check, after the last entry, that the head names it, and check prunings, erasures and the anchor."""
        self._check_anchor()
        head = self._head
        self.check_not_ended(head.seq)
        if self.seq > head.seq:
            raise _ChainBrokenError(f"Entry {head.seq + 1} was added after the end of the chain.")
        if self.hash != head.hash:
            raise _ChainBrokenError(f"Entry {self.seq} was replaced: the head names another hash.")
        self.check_records()
        anchor = self._search.anchor
        if anchor is not None and not self._search.found:
            why = "was pruned: give a newer one" if anchor.number < head.pruned_seq else "is missing"
            raise _ChainBrokenError(f"The anchor, entry {anchor.number}, {why}.")

    def check_not_ended(self, last: int) -> None:
        """Check, after the last entry, that the chain goes up to number `last`."""
        if self.seq < last:
            raise _ChainBrokenError(
                f"Entry {self.seq + 1} and all later ones are missing: the head names entry {self._head.seq}."
            )

    def check_records(self) -> None:
        """Check, after the last record, that prunings and erasures were recorded."""
        head = self._head
        if self._pruned_detail != build_pruned_detail(head.pruned_seq, head.pruned_hash):
            raise _ChainBrokenError(f"The entries up to {head.pruned_seq} were removed, but not by pruning.")
        if (unrecorded := self._erasures.find_unrecorded()) is not None:
            raise _ChainBrokenError(
                f"Entry {unrecorded} was changed: it looks erased, but no later entry records that."
            )

    def _check_erased(self, entry: AuditEntry, name: str) -> None:
        """Accept an entry with a wrong hash if it has the form of an erased one; a later record must confirm it."""
        if not is_erased(entry) or entry.event == ERASED[0]:
            raise _ChainBrokenError(f"{name} was changed: its hash does not match its content.")
        self._erasures.pass_erased(entry)

    def _check_anchor(self) -> None:
        if self._search.number_passed and not self._search.found:
            raise _ChainBrokenError(f"Entry {self.seq} does not match the anchor: the chain was recomputed.")


async def _read_entries(connection: AsyncConnection, *conditions: ColumnElement[bool]) -> AsyncIterator[AuditEntry]:
    """Yield the entries that meet all conditions, in order, read in chunks."""
    statement = select(audit_events).where(*conditions).order_by(audit_events.c.seq).limit(_CHUNK)
    rows = (await connection.execute(statement)).all()
    while rows:
        for row in rows:
            yield read_entry(row)
        rows = (await connection.execute(statement.where(audit_events.c.seq > rows[-1].seq))).all()
