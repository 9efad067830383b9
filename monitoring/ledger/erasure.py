"""Forgetting a person: documents and salts go, the chain stays, and a signed word says that it was on purpose."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, delete, func, insert, select, tuple_

from monitoring.ledger.entries import Erasure, plain, written_time
from monitoring.ledger.retention import ledger_transaction, scrub
from monitoring.ledger.signing import Signer
from monitoring.ledger.tables import ledger_entries, ledger_erasures, ledger_payloads

CHUNK = 500


class Forgetting:
    """Erases payloads in many short transactions: it can end at any time, and go on later.

    `engine` opens transactions that write. Every method raises LedgerUnavailable. What waits in a spool is not there
    yet: erase again once it is delivered.
    """

    def __init__(self, engine: Engine, signer: Signer, now: datetime) -> None:
        self._engine = engine
        self._signer = signer
        self._now = written_time(now)

    def count(self, principal: str) -> int:
        """How many payloads there are to erase."""
        theirs = ledger_payloads.c.principal == plain(principal)
        with ledger_transaction(self._engine) as connection:
            return connection.execute(select(func.count()).select_from(ledger_payloads).where(theirs)).scalar_one()

    def erase(self, principal: str) -> Iterator[int]:
        """Yield how many payloads each transaction has erased; at the end nothing of them is in SQLite's files.

        Raises LedgerInUse where a reader keeps that from being so.
        """
        while erased := self._erase_some(plain(principal)):
            yield erased
        scrub(self._engine)

    def _erase_some(self, principal: str) -> int:
        payloads, entries = ledger_payloads.c, ledger_entries.c
        same = (payloads.writer == entries.writer) & (payloads.seq == entries.seq)
        wanted = (
            select(entries.writer, entries.seq, entries.id, entries.commitment)
            .join_from(ledger_payloads, ledger_entries, same)
            .where(payloads.principal == principal)
            .order_by(payloads.id)
            .limit(CHUNK)
        )
        with ledger_transaction(self._engine) as connection:
            rows = connection.execute(wanted).all()
            if rows:
                self._replace(connection, rows)
            return len(rows)

    def _replace(self, connection: Connection, rows: Sequence[Any]) -> None:
        places = [(row.writer, row.seq) for row in rows]
        column = tuple_(ledger_payloads.c.writer, ledger_payloads.c.seq)
        connection.execute(delete(ledger_payloads).where(column.in_(places)))
        connection.execute(insert(ledger_erasures), [self._word_for(row) for row in rows])

    def _word_for(self, row: Any) -> dict[str, Any]:
        signature = self._signer.sign(Erasure(self._now, "", "").text(row.id, row.commitment))
        place = {"writer": row.writer, "seq": row.seq}
        return {**place, "at": self._now, "key": self._signer.key_id, "signature": signature}
