"""Whether the record is as it was written: every hash, the order, both ends, and an entry noted earlier."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, select
from sqlalchemy.ext.asyncio import AsyncConnection

from monitoring.audit.events import GENESIS, PRUNED, Entry, entry_from, pruned_detail, safe_text
from monitoring.audit.tables import audit_events, audit_head

_CHUNK = 1000


@dataclass(frozen=True, slots=True)
class Anchor:
    """An entry's number and hash, kept elsewhere since an earlier check."""

    seq: int
    hash: str


@dataclass(frozen=True, slots=True)
class Finding:
    """How many entries were found good, up to `seq` with its `hash`; and the first thing that is wrong, if any."""

    entries: int
    seq: int
    hash: str
    problem: str | None = None


async def check_chain(connection: AsyncConnection, anchor: Anchor | None = None) -> Finding:
    """Follow the chain from its beginning to its head, in one view of the database.

    Whoever can write to the database could compute every hash anew: only an anchor shows that.
    """
    heads = (await connection.execute(select(audit_head))).all()
    if len(heads) != 1:
        return Finding(0, 0, GENESIS, f"The head of the chain is {'not the only one' if heads else 'missing'}.")
    walk = _Walk(heads[0], anchor)
    try:
        async for entry in _entries(connection):
            walk.step(entry)
        walk.end()
    except _WrongError as wrong:
        return Finding(walk.entries, walk.seq, walk.hash, str(wrong))
    return Finding(walk.entries, walk.seq, walk.hash)


class _WrongError(Exception):
    """Its message is the sentence that says what is wrong."""


class _Walk:
    """Where a walk along the chain has come to. Both methods raise _WrongError."""

    def __init__(self, head: Row[Any], anchor: Anchor | None) -> None:
        self.seq, self.hash, self.entries = head.pruned_seq, head.pruned_hash, 0
        self._head = head
        self._anchor = anchor
        self._anchor_met = anchor is None
        self._pruned = pruned_detail(0, GENESIS)
        self._meet_anchor()

    def step(self, entry: Entry) -> None:
        """Go on to the entry that should come next."""
        if entry.seq != self.seq + 1:
            raise _WrongError(f"Entry {self.seq + 1} is missing: entry {entry.seq} follows entry {self.seq}.")
        name = f"Entry {entry.seq} ({safe_text(entry.id, 36)})"
        if entry.hash != entry.computed_hash():
            raise _WrongError(f"{name} was changed: its hash does not fit it.")
        if entry.previous != self.hash:
            raise _WrongError(f"{name} does not follow entry {self.seq}: one was replaced.")
        if (entry.event, entry.outcome) == PRUNED:
            self._pruned = entry.document()["detail"]
        self.seq, self.hash = entry.seq, entry.hash
        self.entries += 1
        self._meet_anchor()

    def end(self) -> None:
        """There are no more entries: the head must say so, too."""
        head = self._head
        if self.seq < head.seq:
            raise _WrongError(f"Entry {self.seq + 1} is missing, and all that followed: the head is entry {head.seq}.")
        if self.seq > head.seq:
            raise _WrongError(f"Entry {head.seq + 1} was added behind the head.")
        if self.hash != head.hash:
            raise _WrongError(f"Entry {self.seq} was replaced: the head names another hash.")
        if self._pruned != pruned_detail(head.pruned_seq, head.pruned_hash):
            raise _WrongError(f"The entries up to {head.pruned_seq} were removed otherwise than by pruning.")
        if not self._anchor_met and self._anchor is not None:
            raise _WrongError(f"Entry {self._anchor.seq}, which was noted earlier, is not there any more.")

    def _meet_anchor(self) -> None:
        if self._anchor is None or self.seq != self._anchor.seq:
            return
        if self.hash != self._anchor.hash:
            raise _WrongError(f"Entry {self.seq} is not the one that was noted: the chain was written anew.")
        self._anchor_met = True


async def _entries(connection: AsyncConnection) -> AsyncIterator[Entry]:
    """In their order, read in parts."""
    statement = select(audit_events).order_by(audit_events.c.seq).limit(_CHUNK)
    rows = (await connection.execute(statement)).all()
    while rows:
        for row in rows:
            yield entry_from(row)
        rows = (await connection.execute(statement.where(audit_events.c.seq > rows[-1].seq))).all()
