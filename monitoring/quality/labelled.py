"""Reads the predictions that have a true label, with the fields that a data set needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct
from sqlalchemy import ColumnElement, Engine, Select, func, select

from monitoring.chains.timestamps import format_timestamp
from monitoring.ledger.entries import EntryWithPayload, LedgerEntry, Payload
from monitoring.ledger.payloads import find_payload_problem
from monitoring.ledger.tables import is_superseded, ledger_entries, ledger_labels, ledger_payloads
from monitoring.ledger.transactions import ledger_errors

_CHUNK = 500


class LabelledPrediction(Struct, frozen=True):
    """A prediction and its newest label. `classes` are those of its model, in the order of its outputs.

    `sha256`, in hex, is that of the image. `intact` is whether the payload matches its entry.
    """

    id: str
    owner: str
    model: str
    label: str
    sha256: str
    classes: Sequence[str]
    intact: bool


def iterate_labelled(engine: Engine, since: datetime | None) -> Iterator[LabelledPrediction]:
    """Yield the labelled predictions made since then, oldest first. Raises LedgerUnavailable.

    They are read in chunks, so that no transaction stays open while the caller works on one.
    """
    last = ""
    while chunk := _read_chunk(engine, since, last):
        yield from chunk
        last = chunk[-1].id


def count_labelled(engine: Engine, since: datetime | None) -> int:
    """Return how many predictions `iterate_labelled` yields. Raises LedgerUnavailable."""
    with ledger_errors(engine.url), engine.begin() as connection:
        count: int = connection.execute(_select_labelled(since, func.count())).scalar_one()
    return count


def _read_chunk(engine: Engine, since: datetime | None, after: str) -> list[LabelledPrediction]:
    labels, payloads = ledger_labels.c, ledger_payloads.c
    columns = payloads.principal, payloads.model, payloads.status, payloads.salt, payloads.document
    statement = _select_labelled(since, labels.label, *ledger_entries.c, *columns)
    statement = statement.where(labels.prediction > after).order_by(labels.prediction).limit(_CHUNK)
    with ledger_errors(engine.url), engine.begin() as connection:
        rows = connection.execute(statement).all()
    return [_read_row(label, LedgerEntry(*row[:6]), Payload(*row[6:])) for label, *row in rows]


def _select_labelled(since: datetime | None, *columns: ColumnElement[Any]) -> Select[Any]:
    """Select from the newest labels, and the entries and payloads of their predictions; pruned ones have none."""
    labels, entries, payloads = ledger_labels.c, ledger_entries.c, ledger_payloads.c
    same_entry = (entries.writer == payloads.writer) & (entries.seq == payloads.seq)
    statement = (
        select(*columns)
        .select_from(ledger_labels)
        .join(ledger_entries, labels.prediction == entries.id)
        .join(ledger_payloads, same_entry)
        .where(~is_superseded())
    )
    return statement if since is None else statement.where(labels.predicted_at >= format_timestamp(since))


def _read_row(label: str, entry: LedgerEntry, payload: Payload) -> LabelledPrediction:
    if find_payload_problem(entry, payload) is not None:
        return LabelledPrediction(entry.id, payload.principal, payload.model, label, "", (), intact=False)
    facts = EntryWithPayload(entry, payload).read_facts()
    return LabelledPrediction(
        id=entry.id,
        owner=facts["principal"],
        model=payload.model,
        label=label,
        sha256=facts["image"]["sha256"],
        classes=tuple(facts["output"]["probabilities"]),
        intact=True,
    )
