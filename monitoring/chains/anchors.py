"""Anchors: the number and hash of one link, kept after one verification and checked by a later one."""

from __future__ import annotations

from msgspec import Struct

GENESIS = "0" * 64  # the previous hash of the first link of a chain


class Anchor(Struct, frozen=True):
    """One link's number and hash. Kept outside the database, it exposes a chain whose hashes were all recomputed."""

    number: int
    hash: str


class AnchorSearch:
    """Looks for an anchor among the links that a verification passes; without an anchor, `found` is always true."""

    def __init__(self, anchor: Anchor | None) -> None:
        self.anchor = anchor
        self.found = anchor is None
        self.number_passed = False  # a link with the anchor's number was passed, whatever its hash

    def pass_link(self, number: int, digest: str) -> None:
        if self.anchor is not None and number == self.anchor.number:
            self.number_passed = True
            self.found = self.found or digest == self.anchor.hash
