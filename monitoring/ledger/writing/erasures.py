"""Erased payloads: a signed statement replaces each, and entries of an erased subject that arrive later get one, too.

Entries arrive later if they waited in a spool during the erasure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from sqlalchemy import Connection, delete, insert, select, tuple_

from monitoring.canary.tables import canary_pairs
from monitoring.chains.signing import Signer
from monitoring.ledger.entries import EntryWithPayload, Erasure, LedgerEntry
from monitoring.ledger.tables import ledger_erased_subjects, ledger_erasures, ledger_labels, ledger_payloads
from storage.engine import dialect_insert


def remember_erasure(connection: Connection, principal: str, at: str) -> None:
    """Record that the entries of the principal up to the time `at` are erased. Its name is stored as a digest."""
    added = dialect_insert(ledger_erased_subjects, connection.dialect).values(subject=_hash_name(principal), at=at)
    key = ledger_erased_subjects.primary_key
    connection.execute(added.on_conflict_do_update(index_elements=key, set_={"at": added.excluded.at}))


def replace_payloads(connection: Connection, entries: Sequence[LedgerEntry], signer: Signer, at: str) -> None:
    """Delete the entries' payloads, and what was derived from them; sign a statement for each at the time `at`.

    The statement of an earlier erasure is replaced, if the payload has been put back since then.
    """
    keys = [(entry.writer, entry.seq) for entry in entries]
    for table in (ledger_payloads, ledger_labels, ledger_erasures):
        connection.execute(delete(table).where(tuple_(table.c.writer, table.c.seq).in_(keys)))
    connection.execute(delete(canary_pairs).where(canary_pairs.c.prediction.in_([entry.id for entry in entries])))
    connection.execute(insert(ledger_erasures), [_build_row(entry, signer, at) for entry in entries])


def erase_delivered(connection: Connection, delivered: Sequence[EntryWithPayload], signer: Signer, at: str) -> None:
    """Erase the delivered entries that are not newer than the erasure of their subject.

    Call `exclude_upkeep` earlier in the same transaction. Otherwise this function and a concurrent erasure could miss
    each other's uncommitted rows, and the delivered entries would keep their payloads.
    """
    digests = [_hash_name(item.payload.principal) for item in delivered]
    columns = ledger_erased_subjects.c
    found = select(columns.subject, columns.at).where(columns.subject.in_(set(digests)))
    erased_at = {row.subject: row.at for row in connection.execute(found)}
    pairs = zip(delivered, digests, strict=True)
    erased = [item.entry for item, digest in pairs if digest in erased_at and item.entry.at <= erased_at[digest]]
    if erased:
        replace_payloads(connection, erased, signer, at)


def _build_row(entry: LedgerEntry, signer: Signer, at: str) -> dict[str, str | int]:
    signature = signer.sign(Erasure(at, "", "").statement(entry.id, entry.commitment))
    return {"writer": entry.writer, "seq": entry.seq, "at": at, "key": signer.key_id, "signature": signature}


def _hash_name(principal: str) -> str:
    """Return a digest that identifies the name. Unlike the name, it may stay in SQLite's files after the erasure."""
    return hashlib.sha256(principal.encode()).hexdigest()
