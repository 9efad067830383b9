"""The chain of one writer, which is one process."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from monitoring.chains.anchors import GENESIS
from monitoring.ledger.entries import (
    SALT_BYTES,
    EntryDraft,
    EntryWithPayload,
    LedgerEntry,
    Payload,
    build_payload,
    hash_entry,
)


class Chain:
    """The end of the chain of `writer`. Only one process appends to it: each process begins its own when it starts."""

    def __init__(self, writer: str, seq: int = 0, digest: str = GENESIS) -> None:
        self.writer = writer
        self.seq = seq
        self.hash = digest

    def link(self, drafts: Sequence[EntryDraft]) -> list[EntryWithPayload]:
        """Build the next entries of the chain; call `advance` once they are durable."""
        items = []
        for draft in drafts:
            payload = build_payload(draft, os.urandom(SALT_BYTES))
            items.append((draft.id, draft.at, payload.compute_commitment(), payload))
        return self._link_payloads(items)

    def relink(self, entries: Sequence[EntryWithPayload]) -> list[EntryWithPayload]:
        """Build the next entries of this chain from the ids and payloads of another chain's entries."""
        return self._link_payloads(
            (item.entry.id, item.entry.at, item.entry.commitment, item.payload) for item in entries
        )

    def _link_payloads(self, items: Iterable[tuple[str, str, str, Payload]]) -> list[EntryWithPayload]:
        """Build entries from their ids, times, commitments and payloads."""
        linked, previous = [], self.hash
        for seq, (entry_id, at, commitment, payload) in enumerate(items, self.seq + 1):
            previous = hash_entry(self.writer, seq, entry_id, at, commitment, previous)
            entry = LedgerEntry(self.writer, seq, entry_id, at, commitment, previous)
            linked.append(EntryWithPayload(entry, payload))
        return linked

    def advance(self, entries: Sequence[EntryWithPayload]) -> None:
        """Move the end of the chain to the last of its new entries."""
        if entries:
            self.seq, self.hash = entries[-1].entry.seq, entries[-1].entry.hash
