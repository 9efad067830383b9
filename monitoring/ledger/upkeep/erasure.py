"""Erases a person's payloads: documents and salts are deleted, and a signed statement replaces each payload."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from msgspec import Struct
from sqlalchemy import Engine, delete, func, select

from monitoring.chains.signing import Signer
from monitoring.chains.timestamps import format_timestamp
from monitoring.cost.tables import caller_sums
from monitoring.errors import LedgerDamaged, LedgerKeyMissing
from monitoring.ledger.entries import LedgerEntry, Payload, sanitize_name
from monitoring.ledger.payloads import find_payload_problem
from monitoring.ledger.tables import ledger_entries, ledger_payloads
from monitoring.ledger.transactions import ledger_transaction, truncate_wal
from monitoring.ledger.writing.erasures import remember_erasure, replace_payloads
from monitoring.quality.drift.store import erase_caller

CHUNK = 500


class _ErasedChunk(Struct, frozen=True):
    """How many payloads a transaction erased, the last id that it read, and the entries of changed payloads."""

    erased: int
    last_id: str
    changed: Sequence[LedgerEntry]


class Eraser:
    """Erases payloads, cost sums and drift states of a person, in many short transactions.

    An erasure can be interrupted at any time and run again. `engine` must have the execution options WRITING. Every
    method raises LedgerUnavailable. Entries in a spool are erased when their process delivers them.

    A gateway without a ledger may have no `signer`: then there are no payloads, unless it had a ledger earlier.
    """

    def __init__(self, engine: Engine, signer: Signer | None, now: datetime) -> None:
        self._engine = engine
        self._signer = signer
        self._now = format_timestamp(now)

    def count(self, principal: str) -> int:
        """Return how many payloads the principal has."""
        own = ledger_payloads.c.principal == sanitize_name(principal)
        with ledger_transaction(self._engine) as connection:
            return connection.execute(select(func.count()).select_from(ledger_payloads).where(own)).scalar_one()

    def erase(self, principal: str) -> Iterator[int]:
        """Yield how many payloads each transaction has erased; at the end SQLite's files contain none of their text.

        A payload that was changed is kept, because it may be another person's. Raises LedgerInUse if a reader keeps the
        text in the files, LedgerDamaged, for changed payloads, once everything else is done, and LedgerKeyMissing if
        there are payloads, but no signer.
        """
        name = sanitize_name(principal)
        with ledger_transaction(self._engine) as connection:
            remember_erasure(connection, name, self._now)
        last_id, changed = None, list[LedgerEntry]()
        while (chunk := self._erase_chunk(name, last_id)) is not None:
            changed += chunk.changed
            last_id = chunk.last_id
            yield chunk.erased
        with ledger_transaction(self._engine) as connection:
            connection.execute(delete(caller_sums).where(caller_sums.c.caller == name))
            erase_caller(connection, name)
        truncate_wal(self._engine)
        if changed:
            raise LedgerDamaged(
                f"The payload of entry {changed[0].seq} of {sanitize_name(changed[0].writer)} was changed"
            )

    def _erase_chunk(self, principal: str, after: str | None) -> _ErasedChunk | None:
        """Erase at most CHUNK payloads with ids above `after`; return None if there are none."""
        payloads, entries = ledger_payloads.c, ledger_entries.c
        same_entry = (payloads.writer == entries.writer) & (payloads.seq == entries.seq)
        columns = payloads.principal, payloads.model, payloads.status, payloads.salt, payloads.document
        statement = (
            select(payloads.id, *entries, *columns)
            .join_from(ledger_payloads, ledger_entries, same_entry)
            .where(payloads.principal == principal)
            .order_by(payloads.id)
            .limit(CHUNK)
        )
        with ledger_transaction(self._engine) as connection:
            rows = connection.execute(statement if after is None else statement.where(payloads.id > after)).all()
            if not rows:
                return None
            if self._signer is None:
                raise LedgerKeyMissing
            intact, changed = list[LedgerEntry](), list[LedgerEntry]()
            for _, *row in rows:
                entry, payload = LedgerEntry(*row[:6]), Payload(*row[6:])
                (changed if find_payload_problem(entry, payload) else intact).append(entry)
            if intact:
                replace_payloads(connection, intact, self._signer, self._now)
            return _ErasedChunk(len(intact), rows[-1][0], changed)
