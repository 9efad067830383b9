"""Exports in Parquet: the lines of the other form, and columns that repeat what analysts ask for. Needs pyarrow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from monitoring.errors import BadExport
from monitoring.ledger.exports import line_of, record_of
from monitoring.ledger.payloads import parsed
from monitoring.ledger.records import Line, Record

_ROWS_AT_ONCE = 2000
_SCHEMA = pyarrow.schema(
    [
        ("record", pyarrow.string()),
        ("id", pyarrow.string()),
        ("at", pyarrow.string()),
        ("principal", pyarrow.string()),
        ("model", pyarrow.string()),
        ("status", pyarrow.int32()),
        ("code", pyarrow.string()),
        ("label", pyarrow.string()),
        ("confidence", pyarrow.float64()),
    ]
)


def write_rows(records: Iterable[Record], path: Path) -> Iterator[Record]:
    """Write each record as a row, some thousands at once, and pass it on to whoever counts. Raises BadExport."""
    waiting = iter(records)
    with pyarrow.parquet.ParquetWriter(path, _SCHEMA, compression="zstd") as writer:
        while part := list(islice(waiting, _ROWS_AT_ONCE)):
            rows = [{"record": line_of(record), **_columns(record)} for record in part]
            try:
                batch = pyarrow.RecordBatch.from_pylist(rows, schema=_SCHEMA)
            except (pyarrow.ArrowException, TypeError) as error:
                raise BadExport(
                    "The ledger was changed and has no place in columns: `ledger verify` says how."
                ) from error
            writer.write_batch(batch)
            yield from part


def read_rows(path: Path) -> Iterator[Record]:
    """The records, whose repeated columns say the same. Raises BadExport."""
    number = 0
    try:
        # Whatever is read ahead would stay in memory.
        with pyarrow.parquet.ParquetFile(path, pre_buffer=False) as file:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, _SCHEMA.names, use_threads=False)
                rows = zip(*(table[name].to_pylist() for name in _SCHEMA.names), strict=True)
                for number, row in enumerate(rows, number + 1):  # noqa: B020  (it goes on counting)
                    yield _checked(row, number)
    except (pyarrow.ArrowException, OSError, KeyError) as error:
        raise BadExport(f"{path} cannot be read as Parquet: the file was damaged, or is something else.") from error


def _columns(record: Record) -> dict[str, Any]:
    if not isinstance(record, Line):
        return {}
    entry, payload = record.entry, record.payload
    found: dict[str, Any] = {"id": entry.id, "at": entry.at}
    if payload is not None:
        found |= {"principal": payload.principal, "model": payload.model, "status": payload.status}
        with suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):  # one that was changed
            document = parsed(payload.document)
            output = document["output"] or {}
            found |= {"code": document["code"], "label": output.get("label"), "confidence": output.get("confidence")}
    return found


def _checked(row: tuple[Any, ...], number: int) -> Record:
    """Raises BadExport where a column was changed: analysts read the columns, not the record."""
    record = record_of(row[0], number)
    if row[1:] != tuple((dict.fromkeys(_SCHEMA.names[1:]) | _columns(record)).values()):
        raise BadExport(f"The columns of row {number} do not say what its record says: they were changed.")
    return record
