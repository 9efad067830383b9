"""Writes checkpoints, which name where the chains end.

Only this process's memory and signed statements determine what a checkpoint must name. The column `claimed` is not
signed: an attacker who controls the database could set it so that no checkpoint names a chain, and truncate the chain
later.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import structlog
from msgspec import Struct
from msgspec.structs import asdict, replace
from sqlalchemy import Connection, Row, insert, or_, select, text, update

from monitoring.chains.anchors import GENESIS
from monitoring.chains.signing import Signer, Verifier
from monitoring.chains.timestamps import format_timestamp
from monitoring.ledger.entries import Checkpoint, Claim, format_claims, sanitize_name
from monitoring.ledger.records import read_head
from monitoring.ledger.tables import ledger_checkpoints, ledger_heads
from monitoring.ledger.writing.claims import WINDOW, SignedClaims

NEVER_CLAIMED = -1
MAX_SEARCHES = 100  # per checkpoint; the next checkpoint continues
_CHECKPOINT_LOCK = 0x6C656467  # the key of a PostgreSQL advisory lock: arbitrary, but the same in all processes

log = structlog.get_logger("atalaya.ledger")


class CheckpointResult(Struct, frozen=True):
    """The number of the newest checkpoint, and the checkpoint that was added, if one was."""

    newest: int
    added: Checkpoint | None


class CheckpointWriter:
    """Adds checkpoints that name the end of every chain that has grown.

    Calls `on_contradiction` for each row that contradicts signed statements or what this process has written. `own`
    holds the end of each chain that this process has written. Signatures by the earlier keys in `public_keys` are
    accepted as well.
    """

    def __init__(
        self,
        signer: Signer,
        clock: Callable[[], datetime],
        on_contradiction: Callable[[], None],
        public_keys: Sequence[str] = (),
    ) -> None:
        self._signer = signer
        self._clock = clock
        self._on_contradiction = on_contradiction
        self._verifier = Verifier([signer.public_key, *public_keys])
        self._claims = SignedClaims(self._verifier)
        self._reported_heads: set[tuple[object, ...]] = set()
        self._foreign_writers: set[str] = set()
        self._searches = 0
        self.own: dict[str, Claim] = {}

    def use_signer(self, signer: Signer) -> None:
        """Sign with another key; signatures of the earlier ones are still accepted."""
        self._verifier.add(signer.public_key)
        self._claims.read_again(signer.key_id)  # another process may have used the key before this one got it
        self._signer = signer

    def add(self, connection: Connection, opened: Claim | None = None) -> CheckpointResult:
        """Add a checkpoint unless no chain has grown; `opened` is a chain that this transaction begins.

        Call `confirm` once the transaction is durable.
        """
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _CHECKPOINT_LOCK})
        newest = read_newest(connection)
        if not self._claims.follow(connection, newest):
            self._report("checkpoint", "the last checkpoint that this process has read was removed or replaced")
        own = self.own if opened is None else {**self.own, opened.writer: opened}
        grown = self._find_grown(connection, newest.number if newest else 0, own)
        if not grown:
            return CheckpointResult(newest.number if newest else 0, None)
        checkpoint = self._build(newest, grown)
        connection.execute(insert(ledger_checkpoints), asdict(checkpoint))
        for claim in grown:
            _set_claimed(connection, claim.writer, claim.seq)
        return CheckpointResult(checkpoint.number, checkpoint)

    def confirm(self, result: CheckpointResult) -> None:
        """Remember a durable checkpoint, and log it, so that logs kept elsewhere contain anchors."""
        if result.added is not None:
            self._claims.note(result.added)
            log.info("ledger_checkpoint", number=result.added.number, hash=result.added.hash)

    def _find_grown(self, connection: Connection, newest: int, own: Mapping[str, Claim]) -> Sequence[Claim]:
        """Return the ends of the chains that no checkpoint names, and correct the column `claimed` of the others."""
        heads, self._searches = ledger_heads.c, 0
        recent = heads.checkpoint >= newest - WINDOW
        selected = select(ledger_heads).where(or_(heads.seq > heads.claimed, recent, heads.writer.in_(own)))
        ends = {
            row.writer: self._read_end(connection, row, own.get(row.writer)) for row in connection.execute(selected)
        }
        # A head that was removed or changed does not hide what this process has written.
        ends |= {writer: claim for writer, claim in own.items() if ends.get(writer) is None}
        return [claim for claim in ends.values() if claim is not None and self._is_unnamed(claim)]

    def _is_unnamed(self, claim: Claim) -> bool:
        named = self._claims.find(claim.writer)
        return named is None or named < claim.seq

    def _read_end(self, connection: Connection, row: Row[Any], own: Claim | None) -> Claim | None:
        """Return the end of a chain; None if no checkpoint has to name it, or if its head has no valid signature."""
        own_seq = own.seq if own is not None else 0
        if self._is_up_to_date(row, own_seq) or not self._has_own_signature(row, own):
            return None
        named = self._find_named(connection, row, own)
        self._report_shortened(row, own_seq, named)
        end = own if own is not None and own.seq > row.seq else Claim(row.writer, row.seq, row.hash)
        if named is None and own is None and self._is_settled(connection, end):
            return None
        self._check_claimed(connection, row, end, named)
        return end

    def _is_up_to_date(self, row: Row[Any], own_seq: int) -> bool:
        """Whether a checkpoint names the end of the chain, and this process has written no later entry."""
        named = self._claims.find(row.writer)
        return bool(row.seq == row.claimed == named and row.seq >= own_seq)

    def _report_shortened(self, row: Row[Any], own_seq: int, named: int | None) -> None:
        """Report a chain that ends before an entry that a checkpoint names or that this process has written."""
        expected = max(own_seq, named or 0)
        if row.seq < expected:
            self._report("head", "its chain was cut back", row.writer, row.seq, expected)

    def _find_named(self, connection: Connection, row: Row[Any], own: Claim | None) -> int | None:
        """Return the last entry of the chain that a signed checkpoint names.

        Searches older checkpoints if the head is older than those that were read: naming an entry twice would break the
        rule that a writer's numbers ascend from checkpoint to checkpoint.
        """
        named = self._claims.find(row.writer)
        if named is None and own is None and row.checkpoint < self._claims.start and self._searches < MAX_SEARCHES:
            self._searches += 1
            named = self._claims.search(connection, row.writer, row.checkpoint)
        return named

    def _is_settled(self, connection: Connection, end: Claim) -> bool:
        """Whether no checkpoint has to name the end, because the chain is empty or was pruned up to that entry."""
        return end.seq == 0 or self._claims.is_pruned(connection, end.writer, end.seq)

    def _check_claimed(self, connection: Connection, row: Row[Any], end: Claim, named: int | None) -> None:
        """Report and correct a column `claimed` that disagrees with the signed checkpoints."""
        claimed = row.claimed if isinstance(row.claimed, int) else None
        expected = NEVER_CLAIMED if named is None else named
        if claimed == expected or (named is None and claimed is not None and claimed < end.seq):
            return
        self._report("claim", "the note of the last named entry was changed", row.writer, row.claimed, expected)
        _set_claimed(connection, row.writer, expected)

    def _has_own_signature(self, row: Row[Any], own: Claim | None) -> bool:
        """Whether a key of this gateway has signed the head: a checkpoint must not vouch for any other."""
        head = read_head(row)
        well_formed = isinstance(row.seq, int) and isinstance(row.checkpoint, int)
        if well_formed and self._verifier.is_valid(head.statement(), head.key, head.signature):
            return True
        if own is not None or self._verifier.has_key(head.key):
            self._report("head", "its signature does not match its content", row.writer, row.seq, own and own.seq)
        elif row.writer not in self._foreign_writers and _is_grown(row):
            self._foreign_writers.add(row.writer)
            log.error("ledger_head_not_ours", writer=row.writer, policy="checkpoints of this process do not name it")
        return False

    def _report(self, kind: str, reason: str, writer: str = "", found: object = None, expected: object = None) -> None:
        """Log and count a contradiction. A head cannot be corrected, so its contradictions are reported only once."""
        if kind == "head":
            contradiction = reason, writer, found, expected
            if contradiction in self._reported_heads:
                return
            self._reported_heads.add(contradiction)
        self._on_contradiction()
        log.error(
            "ledger_contradicted",
            kind=kind,
            reason=reason,
            writer=sanitize_name(writer),
            found=sanitize_name(str(found)),
            expected=sanitize_name(str(expected)),
            policy="the process trusts only signatures and what it wrote itself",
        )

    def _build(self, last: Row[Any] | None, claims: Sequence[Claim]) -> Checkpoint:
        number, previous = (last.number + 1, last.hash) if last else (1, GENESIS)
        now = format_timestamp(self._clock())
        checkpoint = Checkpoint(number, now, format_claims(claims), previous, "", self._signer.key_id, "")
        signature = self._signer.sign(checkpoint.statement())
        return replace(checkpoint, hash=checkpoint.compute_hash(), signature=signature)


def _is_grown(row: Row[Any]) -> bool:
    try:
        return bool(row.seq > row.claimed)
    except TypeError:  # SQLite stores values of any type in any column
        return True


def read_newest(connection: Connection) -> Row[Any] | None:
    """Return the row of the checkpoint with the highest number."""
    newest = select(ledger_checkpoints).order_by(ledger_checkpoints.c.number.desc()).limit(1)
    return connection.execute(newest).one_or_none()


def _set_claimed(connection: Connection, writer: str, seq: int) -> None:
    connection.execute(update(ledger_heads).where(ledger_heads.c.writer == writer).values(claimed=seq))
