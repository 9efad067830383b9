"""The chain of one writer, which is one process."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

from monitoring.chains.anchors import GENESIS
from monitoring.ledger.entries import SALT_BYTES, EntryDraft, EntryWithPayload, LedgerEntry, build_payload


class Chain:
    """The end of the chain of `writer`. No other process appends to it: each start of a process begins its own."""

    def __init__(self, writer: str, seq: int = 0, digest: str = GENESIS) -> None:
        self.writer = writer
        self.seq = seq
        self.hash = digest

    def link(self, drafts: Sequence[EntryDraft]) -> list[EntryWithPayload]:
        """Build the next entries of the chain; call `advance` once they are durable."""
        return self.relink([_unlinked(draft) for draft in drafts])

    def relink(self, entries: Sequence[EntryWithPayload]) -> list[EntryWithPayload]:
        """Build the next entries of this chain from the ids and payloads of others."""
        linked, previous = [], self.hash
        for seq, item in enumerate(entries, self.seq + 1):
            entry = replace(item.entry, writer=self.writer, seq=seq)
            entry = replace(entry, hash=entry.compute_hash(previous))
            linked.append(EntryWithPayload(entry, item.payload))
            previous = entry.hash
        return linked

    def advance(self, entries: Sequence[EntryWithPayload]) -> None:
        """Move the end of the chain to the last of its new entries."""
        if entries:
            self.seq, self.hash = entries[-1].entry.seq, entries[-1].entry.hash


def _unlinked(draft: EntryDraft) -> EntryWithPayload:
    payload = build_payload(draft, os.urandom(SALT_BYTES))
    return EntryWithPayload(LedgerEntry("", 0, draft.id, draft.at, payload.compute_commitment(), ""), payload)
