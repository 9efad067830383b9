"""Exports in Parquet: the JSON lines, and columns with the fields that analysts query. Requires pyarrow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from monitoring.errors import BadExport
from monitoring.ledger.entries import EntryKind
from monitoring.ledger.exports.lines import decode_record, encode_record
from monitoring.ledger.payloads import parse_json
from monitoring.ledger.records import EntryRecord, Record

_CHUNK = 2000
SCHEMA = pyarrow.schema(
    [
        ("record", pyarrow.string()),
        ("id", pyarrow.string()),
        ("at", pyarrow.timestamp("us", tz="UTC")),
        ("principal", pyarrow.string()),
        ("model", pyarrow.string()),
        ("status", pyarrow.int32()),
        ("code", pyarrow.string()),
        ("label", pyarrow.string()),
        ("confidence", pyarrow.float64()),
        ("temperature", pyarrow.float64()),
        ("reason", pyarrow.string()),
        ("kind", pyarrow.string()),
        ("width", pyarrow.int32()),
        ("height", pyarrow.int32()),
        ("brightness", pyarrow.float64()),
        ("sharpness", pyarrow.float64()),
        ("gate_score", pyarrow.float64()),
    ]
)
_OUTPUT_COLUMNS = ("label", "confidence", "temperature", "gate_score")
_IMAGE_COLUMNS = ("width", "height", "brightness", "sharpness")
# Exports of release 0.1.0 have no such columns.
_ADDED = {"temperature", "reason", "kind", "gate_score", *_IMAGE_COLUMNS}


def write_rows(records: Iterable[Record], path: Path) -> Iterator[Record]:
    """Write each record as a row, in chunks, and yield it for the caller to count. Raises BadExport."""
    remaining = iter(records)
    with pyarrow.parquet.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        while chunk := list(islice(remaining, _CHUNK)):
            rows = [{"record": encode_record(record), **_extract_columns(record, _parse_time)} for record in chunk]
            try:
                batch = pyarrow.RecordBatch.from_pylist(rows, schema=SCHEMA)
            except (pyarrow.ArrowException, TypeError) as error:
                raise BadExport(
                    "A value in the ledger was changed and does not fit its column. Run `ledger verify` for details."
                ) from error
            writer.write_batch(batch)
            yield from chunk


def read_rows(path: Path) -> Iterator[Record]:
    """Yield the records, and check that the columns agree with them. Raises BadExport."""
    number = 0
    try:
        # With pre_buffer, everything that is read ahead would stay in memory.
        with pyarrow.parquet.ParquetFile(path, pre_buffer=False) as file:
            # Release 0.1.0 wrote the time as text.
            read_time = str if file.schema_arrow.field("at").type == pyarrow.string() else _parse_time
            names = [name for name in SCHEMA.names if name not in _ADDED or name in file.schema_arrow.names]
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, names, use_threads=False)
                rows = zip(*(table[name].to_pylist() for name in names), strict=True)
                for number, row in enumerate(rows, number + 1):  # noqa: B020  (continues to count)
                    yield _decode_row(dict(zip(names, row, strict=True)), number, read_time)
    except (pyarrow.ArrowException, OSError, KeyError) as error:
        raise BadExport(
            f"{path} cannot be read as Parquet: the file was damaged, or is not a ledger export."
        ) from error


def _extract_columns(record: Record, read_time: Callable[[str], Any]) -> dict[str, Any]:
    if not isinstance(record, EntryRecord):
        return {}
    entry, payload = record.entry, record.payload
    columns: dict[str, Any] = {"id": entry.id, "at": read_time(entry.at)}
    if payload is not None:
        columns |= {"principal": payload.principal, "model": payload.model, "status": payload.status}
        with suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):  # a changed document
            document = parse_json(payload.document)
            columns["kind"] = document.get("kind", EntryKind.PREDICTION.value)
            output, image = document["output"] or {}, document.get("image") or {}
            columns |= {"code": document["code"], **{name: output.get(name) for name in _OUTPUT_COLUMNS}}
            columns |= {name: image.get(name) for name in _IMAGE_COLUMNS}
            columns["reason"] = output.get("abstention", {}).get("reason")
    return columns


def _parse_time(text: str) -> datetime | None:
    """Return the time in UTC, or None if it was changed: the verification reports it."""
    with suppress(ValueError, TypeError):
        parsed = datetime.fromisoformat(text)
        return parsed if parsed.tzinfo is UTC else None
    return None


def _decode_row(row: dict[str, Any], number: int, read_time: Callable[[str], Any]) -> Record:
    """Decode a row. Raises BadExport if a column contradicts the record, because analysts read the columns."""
    record = decode_record(row.pop("record"), number)
    columns = _extract_columns(record, read_time)
    if any(value != columns.get(name) for name, value in row.items()):
        raise BadExport(f"The columns of row {number} contradict its record: they were changed.")
    return record
