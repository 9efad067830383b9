"""Dump and load tables in a format that does not depend on the database: one JSON array per row."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, BinaryIO

from sqlalchemy import Connection, DateTime, MetaData, Table, select
from sqlalchemy.exc import DataError, IntegrityError, ProgrammingError

_BATCH = 1000  # rows
# Parsed JSON takes up to 30 times as much memory as its text.
_MAX_BATCH_BYTES = 1 << 21
_MAX_ROW_BYTES = 1 << 22  # a hundred times more than any row has


def reflect_tables(connection: Connection, names: Iterable[str]) -> list[Table]:
    """Return the named tables that exist, each after the tables that its foreign keys reference."""
    wanted = set(names)
    metadata = MetaData()
    metadata.reflect(connection, only=lambda name, _: name in wanted)
    return [table for table in metadata.sorted_tables if table.name in wanted]


def dump_table(connection: Connection, table: Table) -> Iterator[bytes]:
    """Yield the rows of a table in batches, with the columns in their order in `table`.

    Times become ISO 8601 strings in UTC. The rows are those that the connection's transaction sees.
    """
    result = connection.execute(select(table).execution_options(yield_per=_BATCH))
    for rows in result.partitions():
        yield b"".join(json.dumps(list(map(_encode, row))).encode() + b"\n" for row in rows)


def load_rows(connection: Connection, table: Table, columns: Sequence[str], content: BinaryIO) -> int:
    """Insert rows, whose values are in the order of `columns`, in batches; return their number.

    Raises ValueError if the rows do not fit the table.
    """
    unknown = set(columns) - {column.name for column in table.columns}
    if unknown:
        raise ValueError(f"{table.name} has no column {min(unknown)!r}")
    time_columns = {column.name for column in table.columns if isinstance(column.type, DateTime)}
    loaded = 0
    for rows in _read_batches(content):
        parameters = [
            {name: _decode(value) if name in time_columns else value for name, value in zip(columns, row, strict=True)}
            for row in rows
        ]
        _insert(connection, table, parameters)
        loaded += len(rows)
    return loaded


def _read_batches(content: BinaryIO) -> Iterator[Sequence[list[Any]]]:
    """Yield batches of rows of limited size. Raises ValueError."""
    rows, size = list[list[Any]](), 0
    while line := content.readline(_MAX_ROW_BYTES):
        if len(line) == _MAX_ROW_BYTES:
            raise ValueError(f"a row has {_MAX_ROW_BYTES} bytes or more")
        rows.append(_parse_row(line))
        size += len(line)
        if len(rows) == _BATCH or size >= _MAX_BATCH_BYTES:
            yield rows
            rows, size = [], 0
    if rows:
        yield rows


def _parse_row(line: bytes) -> list[Any]:
    """Raises ValueError."""
    try:
        row = json.loads(line)
    except RecursionError as error:
        raise ValueError("a row is nested too deeply") from error
    if not isinstance(row, list) or not all(value is None or isinstance(value, str | int | float) for value in row):
        raise ValueError("a row is not a list of texts, numbers, booleans and nulls")
    return row


def _insert(connection: Connection, table: Table, parameters: Sequence[Mapping[str, Any]]) -> None:
    """Raises ValueError if a value has the wrong type, is missing, or violates a constraint."""
    try:
        connection.execute(table.insert(), parameters)
    except (DataError, IntegrityError, ProgrammingError, OverflowError) as error:
        raise ValueError(f"the database rejects the rows ({type(error).__name__})") from error


def _encode(value: object) -> object:
    if isinstance(value, datetime):
        # SQLite stores no time zone: its times are in UTC.
        return (value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)).isoformat()
    return value


def _decode(value: Any) -> datetime | None:
    """Raises ValueError."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError("a time is not a text")
    return datetime.fromisoformat(value)
