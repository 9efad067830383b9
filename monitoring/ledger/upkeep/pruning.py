"""Prunes the chains: deletes the oldest entries and writes a signed stump for them, so that the rest still verifies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row, delete, func, insert, select, update

from monitoring.canary.tables import canary_pairs
from monitoring.chains.anchors import GENESIS
from monitoring.chains.signing import Signer, Verifier
from monitoring.chains.timestamps import format_timestamp
from monitoring.errors import LedgerDamaged
from monitoring.ledger.entries import CHECKPOINTS, Checkpoint, Claim, LedgerEntry, Stump, parse_claims, sanitize_name
from monitoring.ledger.records import find_writers, read_checkpoint_page
from monitoring.ledger.tables import (
    ledger_checkpoints,
    ledger_entries,
    ledger_erased_subjects,
    ledger_erasures,
    ledger_heads,
    ledger_labels,
    ledger_payloads,
    ledger_stumps,
)
from monitoring.ledger.transactions import ledger_transaction, truncate_wal

CHUNK = 1000
_NOT_SIGNED = "is not signed by a known key (--public-key adds one), or was changed"


class Pruner:
    """Deletes old entries in many short transactions. Pruning can be interrupted at any time and run again.

    Because it signs a stump for the deleted entries, it verifies them first, with the key of this signer and the
    `public_keys` of earlier ones. `engine` must have the execution options WRITING. Every method raises
    LedgerUnavailable.
    """

    def __init__(self, engine: Engine, signer: Signer, now: datetime, public_keys: Sequence[str] = ()) -> None:
        self._engine = engine
        self._signer = signer
        self._verifier = Verifier([signer.public_key, *public_keys])
        self._now = format_timestamp(now)

    def count(self, before: datetime) -> int:
        """Return roughly how many entries would be deleted."""
        older = ledger_entries.c.at < format_timestamp(before)
        with self._transaction() as connection:
            return connection.execute(select(func.count()).select_from(ledger_entries).where(older)).scalar_one()

    def prune(self, before: datetime) -> Iterator[int]:
        """Yield how many entries each transaction has deleted.

        Checkpoints that are no longer needed, and the times of erasures before `before`, are deleted last.
        Raises LedgerInUse if a reader keeps their text in SQLite's files, and LedgerDamaged, for changed rows, once
        everything else is done.
        """
        limit, damage = format_timestamp(before), list[LedgerDamaged]()
        with self._transaction() as connection:
            writers = connection.execute(select(ledger_heads.c.writer).order_by(ledger_heads.c.writer)).scalars().all()
            headless = sorted(find_writers(connection) - set(writers))
        damage += (LedgerDamaged(f"The head of {sanitize_name(writer)} is missing") for writer in headless)
        for writer in writers:
            try:
                while deleted := self._prune_chain(writer, limit):
                    yield deleted
            except LedgerDamaged as error:
                damage.append(error)
        try:
            last_claims = self._find_last_claims()
            while self._prune_checkpoints(limit, last_claims):
                pass
        except LedgerDamaged as error:
            damage.append(error)
        with self._transaction() as connection:
            connection.execute(delete(ledger_erased_subjects).where(ledger_erased_subjects.c.at < limit))
        truncate_wal(self._engine)
        if damage:
            raise damage[0]

    def _prune_chain(self, writer: str, limit: str) -> int:
        """Delete at most CHUNK entries of a chain, all before the first one that is not older than `limit`.

        Returns their number. Raises LedgerDamaged.
        """
        columns = ledger_entries.c
        own = columns.writer == writer
        with self._transaction() as connection:
            rows = connection.execute(select(ledger_entries).where(own).order_by(columns.seq).limit(CHUNK)).all()
            older = next((index for index, row in enumerate(rows) if str(row.at) >= limit), len(rows))
            if older == 0:
                return 0
            seq, digest = self._read_start(connection, writer)
            for row in rows[:older]:
                entry = LedgerEntry(*row)
                if not _follows(entry, seq, digest):
                    raise LedgerDamaged(f"Entry {sanitize_name(str(entry.seq))} of {sanitize_name(writer)} was changed")
                seq, digest = entry.seq, entry.hash
            for table in (ledger_labels, ledger_payloads, ledger_erasures, ledger_entries):
                connection.execute(delete(table).where(table.c.writer == writer, table.c.seq <= seq))
            pruned = [row.id for row in rows[:older]]
            connection.execute(delete(canary_pairs).where(canary_pairs.c.prediction.in_(pruned)))
            self._write_stump(connection, writer, seq, digest)
            return older

    def _prune_checkpoints(self, limit: str, last_claims: Mapping[str, int]) -> int:
        """Delete at most CHUNK checkpoints, all before the first one that is not older than `limit` or still needed.

        Returns their number. Raises LedgerDamaged.
        """
        with self._transaction() as connection:
            oldest = read_checkpoint_page(connection, None, CHUNK + 1)
            stumps = {row.writer: row.seq for row in connection.execute(select(ledger_stumps)) if self._is_signed(row)}
            number, digest = self._read_start(connection, CHECKPOINTS)
            count = 0
            # The newest checkpoint always stays: the next one follows it.
            for checkpoint in oldest[:-1]:
                if checkpoint.at >= limit:
                    break
                self._check(checkpoint, number, digest)
                if any(_is_needed(claim, stumps, last_claims) for claim in parse_claims(checkpoint.heads)):
                    break
                number, digest, count = checkpoint.number, checkpoint.hash, count + 1
            if count:
                connection.execute(delete(ledger_checkpoints).where(ledger_checkpoints.c.number <= number))
                self._write_stump(connection, CHECKPOINTS, number, digest)
            return count

    def _find_last_claims(self) -> Mapping[str, int]:
        """Return, for each writer, the number of the last entry that a checkpoint names. Raises LedgerDamaged."""
        with self._transaction() as connection:
            number, digest = self._read_start(connection, CHECKPOINTS)
            page = read_checkpoint_page(connection, None, CHUNK)
        last_claims = dict[str, int]()
        while page:
            for checkpoint in page:
                self._check(checkpoint, number, digest)
                last_claims |= {claim.writer: claim.seq for claim in parse_claims(checkpoint.heads)}
                number, digest = checkpoint.number, checkpoint.hash
            with self._transaction() as connection:
                start = self._read_start(connection, CHECKPOINTS)
                number, digest = start if start[0] > number else (number, digest)  # another process may prune, too
                page = read_checkpoint_page(connection, number, CHUNK)
        return last_claims

    def _check(self, checkpoint: Checkpoint, number: int, digest: str) -> None:
        """Raise LedgerDamaged if the checkpoint does not follow that number and hash, or no known key signed it."""
        name = f"Checkpoint {sanitize_name(str(checkpoint.number))}"
        follows = checkpoint.number == number + 1 and checkpoint.previous == digest
        if not follows or "\n" in checkpoint.at or checkpoint.hash != checkpoint.compute_hash():
            raise LedgerDamaged(f"{name}, or the one before it, was changed")
        if not self._verifier.is_valid(checkpoint.statement(), checkpoint.key, checkpoint.signature):
            raise LedgerDamaged(f"{name} {_NOT_SIGNED}")

    def _read_start(self, connection: Connection, writer: str) -> tuple[int, str]:
        """Return number and hash of the last pruned entry of a chain. Raises LedgerDamaged."""
        row = connection.execute(select(ledger_stumps).where(ledger_stumps.c.writer == writer)).one_or_none()
        if row is None:
            return 0, GENESIS
        if not self._is_signed(row):
            raise LedgerDamaged(f"The stump of {sanitize_name(writer)} {_NOT_SIGNED}")
        return row.seq, row.hash

    def _is_signed(self, row: Row[Any]) -> bool:
        statement = Stump(row.writer, row.seq, row.hash, row.at).statement()
        return self._verifier.is_valid(statement, row.key, row.signature)

    def _write_stump(self, connection: Connection, writer: str, seq: int, digest: str) -> None:
        stump = Stump(writer, seq, digest, self._now)
        values = {
            "seq": seq,
            "hash": digest,
            "at": self._now,
            "key": self._signer.key_id,
            "signature": self._signer.sign(stump.statement()),
        }
        own = ledger_stumps.c.writer == writer
        if connection.execute(update(ledger_stumps).where(own).values(**values)).rowcount == 0:
            connection.execute(insert(ledger_stumps).values(writer=writer, **values))

    def _transaction(self) -> AbstractContextManager[Connection]:
        return ledger_transaction(self._engine)


def _follows(entry: LedgerEntry, seq: int, digest: str) -> bool:
    try:
        return entry.seq == seq + 1 and entry.hash == entry.compute_hash(digest)
    except TypeError:  # SQLite stores values of any type in any column
        return False


def _is_needed(claim: Claim, stumps: Mapping[str, int], last_claims: Mapping[str, int]) -> bool:
    """Whether the claim is the last one of a chain, and the entry that it names still exists."""
    return claim.seq > stumps.get(claim.writer, 0) and claim.seq == last_claims.get(claim.writer)
