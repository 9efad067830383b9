"""Sums over the confidence of recorded predictions, by version and hour, kept up to date in the background.

Adding a row to each prediction's transaction would cost its caller time. Instead, every process now and then reads what
the chains have gained since the sums were last updated, and adds it. The end of each chain's part in the sums moves in
the same transaction, and only from where it was read, so that several processes count each entry once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, func, select, update

from monitoring.ledger.entries import NO_REQUEST, sanitize_name
from monitoring.ledger.payloads import parse_json
from monitoring.ledger.tables import ledger_heads, ledger_payloads, prediction_sum_ends, prediction_sums
from monitoring.ledger.transactions import ledger_errors
from storage.engine import dialect_insert
from storage.transactions import WRITING

CHUNK = 100  # entries in a transaction: while it lasts, SQLite lets no other one write
_HOUR_LENGTH = len("2026-11-03T09")

Key = tuple[str, str, str]
"""Model, version and hour."""

Facts = Mapping[str, Any]
"""The document of an entry; it may have been changed by others."""

AddFacts = Callable[[Connection, Sequence[Facts]], None]
"""Adds entries to other results, in the transaction that adds them to the sums; must not raise for changed ones."""


@dataclass(slots=True)
class _Sums:
    predictions: int = 0
    confidence: float = 0.0
    variance: float = 0.0
    abstained: int = 0


class SumUpdater:
    """Uses `engine` from one thread at a time. Methods raise LedgerUnavailable.

    `add_facts` gets the entries of each transaction, so that they are read and counted once for everything.
    """

    def __init__(self, engine: Engine, add_facts: AddFacts = lambda _connection, _facts: None) -> None:
        self._add_facts = add_facts
        self._reading = engine
        self._writing = engine.execution_options(**WRITING)

    def update(self) -> Iterator[None]:
        """Add everything that is recorded, in short transactions; yield after each of them."""
        for writer, start, end in self._find_grown():
            after = start
            while after < end:
                documents, through = self._read_chunk(writer, after, end)
                if not self._add(writer, after, through, list(_parse_documents(documents))):
                    break  # another process is adding this chain
                after = through
                yield

    def _find_grown(self) -> Sequence[tuple[str, int, int]]:
        """Return the chains that are longer than their part in the sums: writer, end of that part, end of the chain."""
        heads, ends = ledger_heads.c, prediction_sum_ends.c
        after = func.coalesce(ends.seq, 0)
        joined = select(heads.writer, after, heads.seq).join_from(
            ledger_heads, prediction_sum_ends, heads.writer == ends.writer, isouter=True
        )
        with ledger_errors(self._reading.url), self._reading.begin() as connection:
            return [tuple(row) for row in connection.execute(joined.where(heads.seq > after))]

    def _read_chunk(self, writer: str, after: int, end: int) -> tuple[Sequence[str], int]:
        """Return the next documents of a chain that are not erased, and the number of the last entry covered."""
        columns = ledger_payloads.c
        chunk = select(columns.seq, columns.status, columns.document).where(
            columns.writer == writer, columns.seq > after, columns.seq <= end
        )
        with ledger_errors(self._reading.url), self._reading.begin() as connection:
            rows = connection.execute(chunk.order_by(columns.seq).limit(CHUNK)).all()
        return [row.document for row in rows if row.status != NO_REQUEST], rows[-1].seq if len(rows) == CHUNK else end

    def _add(self, writer: str, after: int, through: int, facts: Sequence[Facts]) -> bool:
        """Add the entries, unless another process has moved the end of the chain's part."""
        sums = _sum_up(facts)
        with ledger_errors(self._writing.url), self._writing.begin() as connection:
            if not _move_end(connection, writer, after, through):
                return False
            for key in sorted(sums):  # in one order, so that two processes cannot wait for each other
                _add_sums(connection, key, sums[key])
            self._add_facts(connection, facts)
            return True


def _move_end(connection: Connection, writer: str, after: int, through: int) -> bool:
    start = dialect_insert(prediction_sum_ends, connection.dialect).values(writer=writer, seq=0)
    connection.execute(start.on_conflict_do_nothing())
    ends = prediction_sum_ends.c
    moved = update(prediction_sum_ends).where(ends.writer == writer, ends.seq == after).values(seq=through)
    return connection.execute(moved).rowcount == 1


def _add_sums(connection: Connection, key: Key, sums: _Sums) -> None:
    values = {name: getattr(sums, name) for name in _Sums.__slots__}
    added = dialect_insert(prediction_sums, connection.dialect).values(
        model=key[0], version=key[1], hour=key[2], **values
    )
    totals = {name: prediction_sums.c[name] + added.excluded[name] for name in values}
    connection.execute(added.on_conflict_do_update(index_elements=prediction_sums.primary_key, set_=totals))


def _parse_documents(documents: Iterable[str]) -> Iterator[Facts]:
    """Yield the documents that are JSON objects: `atalaya ledger verify` reports what was changed."""
    for document in documents:
        with suppress(ValueError, RecursionError):
            facts = parse_json(document)
            if isinstance(facts, dict):
                yield facts


def _sum_up(documents: Iterable[Facts]) -> Mapping[Key, _Sums]:
    found = defaultdict[Key, _Sums](_Sums)
    for facts in documents:
        prediction = _read_prediction(facts)
        if prediction is None:
            continue
        key, confidence, abstained = prediction
        sums = found[key]
        if abstained:
            sums.abstained += 1
        else:
            sums.predictions += 1
            sums.confidence += confidence
            sums.variance += confidence * (1 - confidence)
    return found


def _read_prediction(facts: Facts) -> tuple[Key, float, bool] | None:
    """Return key and confidence of a prediction, and whether the model abstained; None for another or changed entry."""
    try:
        output, model = facts["output"], facts["model"]
        if output is None or model is None:
            return None
        key = sanitize_name(model["name"]), sanitize_name(model["version"]), str(facts["at"])[:_HOUR_LENGTH]
        confidence = float(output["confidence"])
        abstained = output.get("abstention", {}).get("reason") is not None  # release 0.1.0 never abstained
    except (ValueError, KeyError, TypeError, AttributeError):
        return None  # `atalaya ledger verify` reports what was changed
    return (key, confidence, abstained) if 0 <= confidence <= 1 else None
