"""One process's chain: gives drafts their place in it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

from monitoring.ledger.entries import GENESIS, SALT_BYTES, Draft, Entry, Link, build_payload


class Chain:
    """Where the chain of `writer` ends. Nobody else writes it: a process that starts begins its own."""

    def __init__(self, writer: str, seq: int = 0, digest: str = GENESIS) -> None:
        self.writer = writer
        self.seq = seq
        self.hash = digest

    def links(self, drafts: Sequence[Draft]) -> list[Link]:
        """The next links of the chain; it goes on from them once they are durable, see `advance`."""
        return self.adopt([_unlinked(draft) for draft in drafts])

    def adopt(self, links: Sequence[Link]) -> list[Link]:
        """The same payloads under the same ids, as the next links of this chain."""
        adopted, previous = [], self.hash
        for seq, link in enumerate(links, self.seq + 1):
            entry = _linked(previous, replace(link.entry, writer=self.writer, seq=seq))
            adopted.append(Link(entry, link.payload))
            previous = entry.hash
        return adopted

    def advance(self, links: Sequence[Link]) -> None:
        if links:
            self.seq, self.hash = links[-1].entry.seq, links[-1].entry.hash


def _unlinked(draft: Draft) -> Link:
    payload = build_payload(draft, os.urandom(SALT_BYTES))
    return Link(Entry("", 0, draft.id, draft.at, payload.commitment(), ""), payload)


def _linked(previous: str, entry: Entry) -> Entry:
    return replace(entry, hash=entry.computed_hash(previous))
