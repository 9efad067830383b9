"""Shortening the chains: the oldest entries go, a signed stump stays, and what is left still verifies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row, delete, func, insert, select, update

from monitoring.chains.signing import Signer, Verifier
from monitoring.errors import LedgerDamaged
from monitoring.ledger.entries import (
    CHECKPOINTS,
    GENESIS,
    Checkpoint,
    Claim,
    Entry,
    Stump,
    parse_claims,
    plain,
    written_time,
)
from monitoring.ledger.records import checkpoints_after, writers_in
from monitoring.ledger.tables import (
    ledger_checkpoints,
    ledger_entries,
    ledger_erasures,
    ledger_heads,
    ledger_payloads,
    ledger_stumps,
)
from monitoring.ledger.transactions import ledger_transaction, scrub

CHUNK = 1000
_NOT_SIGNED = "is signed by no known key (--public-key makes one known), or was changed"


class Pruning:
    """Removes what is older than a moment, in many short transactions: it can end at any time, and go on later.

    It signs that it was right to, and so removes only what is as it was written, by this signer or one of the
    `public_keys` of earlier ones. `engine` opens transactions that write. Every method raises LedgerUnavailable.
    """

    def __init__(self, engine: Engine, signer: Signer, now: datetime, public_keys: Sequence[str] = ()) -> None:
        self._engine = engine
        self._signer = signer
        self._verifier = Verifier([signer.public_key, *public_keys])
        self._now = written_time(now)

    def count(self, before: datetime) -> int:
        """About how many entries there are to remove."""
        with self._transaction() as connection:
            older = select(func.count()).select_from(ledger_entries).where(ledger_entries.c.at < written_time(before))
            return connection.execute(older).scalar_one()

    def prune(self, before: datetime) -> Iterator[int]:
        """Yield how many entries each transaction has removed; the checkpoints that name nothing else go at the end.

        Raises LedgerInUse where a reader keeps their text in SQLite's files, and LedgerDamaged when all else is done.
        """
        moment, damage = written_time(before), list[LedgerDamaged]()
        with self._transaction() as connection:
            writers = connection.execute(select(ledger_heads.c.writer).order_by(ledger_heads.c.writer)).scalars().all()
            headless = sorted(writers_in(connection) - set(writers))
        damage += (LedgerDamaged(f"The head of {plain(writer)} is missing") for writer in headless)
        for writer in writers:
            try:
                while removed := self._prune_chain(writer, moment):
                    yield removed
            except LedgerDamaged as error:
                damage.append(error)
        try:
            last = self._last_claims()
            while self._prune_checkpoints(moment, last):
                pass
        except LedgerDamaged as error:
            damage.append(error)
        scrub(self._engine)
        if damage:
            raise damage[0]

    def _prune_chain(self, writer: str, moment: str) -> int:
        """Remove the oldest entries of a chain, at most CHUNK, up to the first that is not older."""
        columns = ledger_entries.c
        ours = columns.writer == writer
        with self._transaction() as connection:
            rows = connection.execute(select(ledger_entries).where(ours).order_by(columns.seq).limit(CHUNK)).all()
            kept = next((place for place, row in enumerate(rows) if str(row.at) >= moment), len(rows))
            if kept == 0:
                return 0
            seq, digest = self._beginning(connection, writer)
            for row in rows[:kept]:
                entry = Entry(*row)
                if not _follows(entry, seq, digest):
                    raise LedgerDamaged(f"Entry {plain(str(entry.seq))} of {plain(writer)} was changed")
                seq, digest = entry.seq, entry.hash
            for table in (ledger_payloads, ledger_erasures, ledger_entries):
                connection.execute(delete(table).where(table.c.writer == writer, table.c.seq <= seq))
            self._leave_stump(connection, writer, seq, digest)
            return kept

    def _prune_checkpoints(self, moment: str, last: Mapping[str, int]) -> int:
        """Remove the oldest checkpoints, at most CHUNK, up to the first that is not older or still proves something."""
        with self._transaction() as connection:
            oldest = checkpoints_after(connection, None, CHUNK + 1)
            stumps = {row.writer: row.seq for row in connection.execute(select(ledger_stumps)) if self._signed(row)}
            seq, digest = self._beginning(connection, CHECKPOINTS)
            gone = 0
            # The newest one always stays: the next follows it.
            for checkpoint in oldest[:-1]:
                if checkpoint.at >= moment:
                    break
                self._check(checkpoint, seq, digest)
                if any(_needed(claim, stumps, last) for claim in parse_claims(checkpoint.heads)):
                    break
                seq, digest, gone = checkpoint.number, checkpoint.hash, gone + 1
            if gone:
                connection.execute(delete(ledger_checkpoints).where(ledger_checkpoints.c.number <= seq))
                self._leave_stump(connection, CHECKPOINTS, seq, digest)
            return gone

    def _last_claims(self) -> Mapping[str, int]:
        """Of each writer the last entry that a checkpoint names. Raises LedgerDamaged."""
        with self._transaction() as connection:
            seq, digest = self._beginning(connection, CHECKPOINTS)
            page = checkpoints_after(connection, None, CHUNK)
        last = dict[str, int]()
        while page:
            for checkpoint in page:
                self._check(checkpoint, seq, digest)
                last |= {claim.writer: claim.seq for claim in parse_claims(checkpoint.heads)}
                seq, digest = checkpoint.number, checkpoint.hash
            with self._transaction() as connection:
                begun = self._beginning(connection, CHECKPOINTS)
                seq, digest = begun if begun[0] > seq else (seq, digest)  # others may prune, too
                page = checkpoints_after(connection, seq, CHUNK)
        return last

    def _check(self, checkpoint: Checkpoint, seq: int, digest: str) -> None:
        """Raises LedgerDamaged where it does not follow that number and hash, or no known key has signed it."""
        name = f"Checkpoint {plain(str(checkpoint.number))}"
        follows = checkpoint.number == seq + 1 and checkpoint.previous == digest
        if not follows or "\n" in checkpoint.at or checkpoint.hash != checkpoint.computed_hash():
            raise LedgerDamaged(f"{name}, or the one before it, was changed")
        if not self._verifier.holds(checkpoint.text(), checkpoint.key, checkpoint.signature):
            raise LedgerDamaged(f"{name} {_NOT_SIGNED}")

    def _beginning(self, connection: Connection, writer: str) -> tuple[int, str]:
        """Number and hash of the last one that was pruned. Raises LedgerDamaged."""
        row = connection.execute(select(ledger_stumps).where(ledger_stumps.c.writer == writer)).one_or_none()
        if row is None:
            return 0, GENESIS
        if not self._signed(row):
            raise LedgerDamaged(f"The stump of {plain(writer)} {_NOT_SIGNED}")
        return row.seq, row.hash

    def _signed(self, row: Row[Any]) -> bool:
        return self._verifier.holds(Stump(row.writer, row.seq, row.hash, row.at).text(), row.key, row.signature)

    def _leave_stump(self, connection: Connection, writer: str, seq: int, digest: str) -> None:
        stump = Stump(writer, seq, digest, self._now)
        values = {
            "seq": seq,
            "hash": digest,
            "at": self._now,
            "key": self._signer.key_id,
            "signature": self._signer.sign(stump.text()),
        }
        ours = ledger_stumps.c.writer == writer
        if connection.execute(update(ledger_stumps).where(ours).values(**values)).rowcount == 0:
            connection.execute(insert(ledger_stumps).values(writer=writer, **values))

    def _transaction(self) -> AbstractContextManager[Connection]:
        return ledger_transaction(self._engine)


def _follows(entry: Entry, seq: int, digest: str) -> bool:
    try:
        return entry.seq == seq + 1 and entry.hash == entry.computed_hash(digest)
    except TypeError:  # SQLite stores anything anywhere
        return False


def _needed(claim: Claim, stumps: Mapping[str, int], last: Mapping[str, int]) -> bool:
    """Whether a checkpoint's claim is the last one of a chain, and the entry it names is still there."""
    return claim.seq > stumps.get(claim.writer, 0) and claim.seq == last.get(claim.writer)
