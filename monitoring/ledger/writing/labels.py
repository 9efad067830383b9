"""The rows of labels, written in the transactions that write their entries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import insert

from monitoring.ledger.entries import NO_REQUEST, EntryKind, EntryWithPayload, Payload, sanitize_name
from monitoring.ledger.tables import ledger_labels
from storage.driver import DriverConnection, DriverStatement

_MARK = f'"kind":"{EntryKind.LABEL}"'  # a document that lacks it need not be parsed

INSERT_LABELS = DriverStatement(insert(ledger_labels))


def append_labels(connection: DriverConnection, linked: Sequence[EntryWithPayload]) -> None:
    """Add a row for each entry that is a label."""
    rows = [build_label_row(item) for item in linked if is_label(item.payload)]
    if rows:
        connection.execute_many(INSERT_LABELS, rows)


def is_label(payload: Payload) -> bool:
    return payload.status == NO_REQUEST and _MARK in payload.document


def build_label_row(item: EntryWithPayload) -> dict[str, Any]:
    """Return the columns that repeat parts of a label's document."""
    entry, facts = item.entry, item.read_facts()
    label, model = facts["label"], facts["model"]
    return {
        "writer": entry.writer,
        "seq": entry.seq,
        "id": entry.id,
        "prediction": label["prediction"],
        "predicted_at": label["predicted_at"],
        "model": sanitize_name(model["name"]),
        "version": sanitize_name(model["version"]),
        "predicted": sanitize_name(label["predicted"]),
        "confidence": label["confidence"],
        "abstained": int(label["abstained"]),
        "label": sanitize_name(label["label"]),
    }
