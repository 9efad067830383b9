"""Exports as lines of JSON, one for each record."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

from msgspec.structs import asdict

from monitoring.errors import BadExport
from monitoring.ledger.entries import Checkpoint, Erasure, Head, LedgerEntry, Payload, Stump
from monitoring.ledger.payloads import parse_json
from monitoring.ledger.records import EntryRecord, Record, StreamHeader, WindowStart

_TYPES: dict[str, type[Any]] = {
    "header": StreamHeader,
    "stump": Stump,
    "checkpoint": Checkpoint,
    "cut": WindowStart,
    "head": Head,
}
_KINDS = {record_type: kind for kind, record_type in _TYPES.items()}


def encode_record(record: Record) -> str:
    if isinstance(record, EntryRecord):
        entry, payload, erasure = record.entry, record.payload, record.erasure
        parts = {"payload": payload and asdict(payload), "erasure": erasure and asdict(erasure)}
        document = {"kind": "entry", **asdict(entry), **parts}
    else:
        document = {"kind": _KINDS[type(record)], **asdict(record)}
    return json.dumps(document, separators=(",", ":"))


def decode_record(line: str, number: int) -> Record:
    """Parse a line. Raises BadExport, whose message contains the line `number`."""
    try:
        document = parse_json(line)
        kind = document.pop("kind")
        if kind != "entry":
            return _build(_TYPES[kind], document)  # type: ignore[no-any-return]
        payload, erasure = document.pop("payload"), document.pop("erasure")
        return EntryRecord(
            _build(LedgerEntry, document),
            _build(Payload, payload) if payload is not None else None,
            _build(Erasure, erasure) if erasure is not None else None,
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadExport(
            f"Line {number} is not a ledger record: the file was damaged, or is not a ledger export."
        ) from error


def write_lines(records: Iterable[Record], file: TextIO) -> Iterator[Record]:
    """Write each record, and yield it for the caller to count."""
    for record in records:
        file.write(encode_record(record) + "\n")
        yield record


def _build(record_type: type[Any], document: dict[str, Any]) -> Any:
    """Build a record. Raises TypeError for unknown or missing fields and for values of the wrong type."""
    record = record_type(**document)
    if any(type(value).__name__ != record_type.__annotations__[name] for name, value in document.items()):
        raise TypeError
    return record
