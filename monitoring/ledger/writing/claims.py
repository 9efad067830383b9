"""Tracks which entries are named by the signed checkpoints that this process has read. Trusts only signed data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, select

from monitoring.chains.anchors import Anchor
from monitoring.chains.signing import Verifier
from monitoring.ledger.entries import CHECKPOINTS, Checkpoint, Claim, Stump, parse_claims
from monitoring.ledger.records import read_checkpoint_page
from monitoring.ledger.tables import ledger_checkpoints, ledger_stumps

WINDOW = 256
"""How many checkpoints a process reads at first (the newest), and in one search. A head names the last checkpoint that
its writer had read. Every process writes one checkpoint a minute, so one of the next few names the head."""

_PAGE = 256


class SignedClaims:
    """Follows the chain of checkpoints, and remembers the last entry of each writer that a trusted checkpoint names.

    Checkpoints signed by keys that the verifier lacks are skipped until `read_again`: they name only heads that were
    signed by those keys.
    """

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier
        self._last: Anchor | None = None
        self._position = 0  # `follow` continues after this number
        self._skipped: dict[str, int] = {}  # for the id of each unknown key, the number of its first checkpoint
        self._named: dict[str, int] = {}
        self.start = 0  # `follow` has read all checkpoints with a higher number

    def follow(self, connection: Connection, newest: Row[Any] | None) -> bool:
        """Read the checkpoints that are new since the last call; `newest` is the row with the highest number.

        Returns whether the last checkpoint that was read still exists. If it does not, starts again.
        """
        consistent = self._last is None or self._is_kept(connection, self._last)
        if not consistent or self._last is None:
            self._named, self._skipped = {}, {}
            self.start = self._position = max(newest.number - WINDOW, 0) if newest else 0
            self._last = None
        while page := read_checkpoint_page(connection, self._position, _PAGE):
            for checkpoint in page:
                self._pass(checkpoint)
        return consistent

    def read_again(self, key_id: str) -> None:
        """Make the next `follow` read again the checkpoints that it skipped because the verifier lacked this key."""
        first = self._skipped.pop(key_id, None)
        if first is not None:
            self._position = min(self._position, first - 1)

    def note(self, checkpoint: Checkpoint) -> None:
        """Remember a checkpoint that this process wrote, once it is durable."""
        if self._last is not None and checkpoint.number <= self._last.number:
            return
        self._pass(checkpoint)

    def find(self, writer: str) -> int | None:
        """Return the last entry of the writer that a checkpoint names, as far as the checkpoints were read."""
        return self._named.get(writer)

    def search(self, connection: Connection, writer: str, after: int) -> int | None:
        """Look for the writer in the WINDOW checkpoints after number `after`, and remember what they name."""
        for checkpoint in read_checkpoint_page(connection, after, WINDOW):
            for claim in self._read_claims(checkpoint):
                if claim.writer == writer:
                    self._record(claim)
        return self._named.get(writer)

    def is_pruned(self, connection: Connection, writer: str, seq: int) -> bool:
        """Whether a stump with a valid signature says that the chain was pruned up to that number or further."""
        row = connection.execute(select(ledger_stumps).where(ledger_stumps.c.writer == writer)).one_or_none()
        if row is None or not isinstance(row.seq, int) or row.seq < seq:
            return False
        statement = Stump(row.writer, row.seq, row.hash, row.at).statement()
        return self._verifier.is_valid(statement, row.key, row.signature)

    def _is_kept(self, connection: Connection, last: Anchor) -> bool:
        stored = select(ledger_checkpoints.c.hash).where(ledger_checkpoints.c.number == last.number)
        digest = connection.execute(stored).scalar_one_or_none()
        return digest == last.hash or (digest is None and self.is_pruned(connection, CHECKPOINTS, last.number))

    def _pass(self, checkpoint: Checkpoint) -> None:
        self._position = checkpoint.number
        if self._last is None or checkpoint.number > self._last.number:
            self._last = Anchor(checkpoint.number, checkpoint.hash)
        if not self._verifier.has_key(checkpoint.key):
            self._skipped.setdefault(checkpoint.key, checkpoint.number)
        for claim in self._read_claims(checkpoint):
            self._record(claim)

    def _record(self, claim: Claim) -> None:
        self._named[claim.writer] = max(claim.seq, self._named.get(claim.writer, 0))

    def _read_claims(self, checkpoint: Checkpoint) -> Sequence[Claim]:
        """Return the claims of a checkpoint; none if its signature is not valid."""
        try:
            if self._verifier.is_valid(checkpoint.statement(), checkpoint.key, checkpoint.signature):
                return parse_claims(checkpoint.heads)
        except (TypeError, ValueError):  # SQLite stores values of any type in any column
            pass
        return ()
