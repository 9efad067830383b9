"""Forgetting a person: documents and salts go, the chain stays, and a signed word says that it was on purpose."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, delete, func, insert, select, tuple_

from monitoring.chains.signing import Signer
from monitoring.errors import LedgerDamaged
from monitoring.ledger.entries import Entry, Erasure, Payload, plain, written_time
from monitoring.ledger.payloads import payload_problem
from monitoring.ledger.tables import ledger_entries, ledger_erasures, ledger_payloads
from monitoring.ledger.transactions import ledger_transaction, scrub

CHUNK = 500


@dataclass(frozen=True, slots=True)
class _Part:
    """What came of some payloads: how many were erased, up to which id, and the entries of those that were changed."""

    erased: int
    last: str
    changed: Sequence[Entry]


class Eraser:
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

        One that was changed is left, for it may be another's. Raises LedgerInUse where a reader keeps the text in the
        files, and LedgerDamaged when all else is done.
        """
        last, changed = None, list[Entry]()
        while (part := self._erase_some(plain(principal), last)) is not None:
            changed += part.changed
            last = part.last
            yield part.erased
        scrub(self._engine)
        if changed:
            raise LedgerDamaged(f"The payload of entry {changed[0].seq} of {plain(changed[0].writer)} was changed")

    def _erase_some(self, principal: str, last: str | None) -> _Part | None:
        """Of the payloads, or those with a greater id than `last`, at most CHUNK; None when there is none."""
        payloads, entries = ledger_payloads.c, ledger_entries.c
        same = (payloads.writer == entries.writer) & (payloads.seq == entries.seq)
        kept = payloads.principal, payloads.model, payloads.status, payloads.salt, payloads.document
        wanted = (
            select(payloads.id, *entries, *kept)
            .join_from(ledger_payloads, ledger_entries, same)
            .where(payloads.principal == principal)
            .order_by(payloads.id)
            .limit(CHUNK)
        )
        with ledger_transaction(self._engine) as connection:
            rows = connection.execute(wanted if last is None else wanted.where(payloads.id > last)).all()
            if not rows:
                return None
            sound, changed = list[Entry](), list[Entry]()
            for _, *row in rows:
                entry, payload = Entry(*row[:6]), Payload(*row[6:])
                (changed if payload_problem(entry, payload) else sound).append(entry)
            if sound:
                self._replace(connection, sound)
            return _Part(len(sound), rows[-1][0], changed)

    def _replace(self, connection: Connection, entries: Sequence[Entry]) -> None:
        places = [(entry.writer, entry.seq) for entry in entries]
        column = tuple_(ledger_payloads.c.writer, ledger_payloads.c.seq)
        connection.execute(delete(ledger_payloads).where(column.in_(places)))
        connection.execute(insert(ledger_erasures), [self._word_for(entry) for entry in entries])

    def _word_for(self, entry: Entry) -> dict[str, Any]:
        signature = self._signer.sign(Erasure(self._now, "", "").text(entry.id, entry.commitment))
        place = {"writer": entry.writer, "seq": entry.seq}
        return {**place, "at": self._now, "key": self._signer.key_id, "signature": signature}
