"""Exporting a ledger as JSON lines and as Parquet, and verifying the export."""

from __future__ import annotations

import io
import json
import re
from collections import Counter, deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.compute
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, text

from monitoring.errors import BadExport
from monitoring.ledger.exports.files import read_export
from monitoring.ledger.exports.lines import decode_record, encode_record, write_lines
from monitoring.ledger.exports.parquet import write_rows
from monitoring.ledger.exports.selection import select_records
from monitoring.ledger.records import EntryRecord, Record, StreamHeader
from tests.support.paths import ROOT

Verify = Callable[..., Any]
Records = Sequence[Record]

FILTERS = (
    StreamHeader(),
    StreamHeader(principal="ana"),
    StreamHeader(model="other"),
    StreamHeader(since="2026-11-20"),
    StreamHeader(until="2026-11-20"),
    StreamHeader(since="2026-11-20", until="2026-11-24", principal="ana"),
    StreamHeader(since="2026-11-24"),
)


COLUMNS = {
    "record": "string",
    "id": "string",
    "at": "timestamp[us, tz=UTC]",
    "principal": "string",
    "model": "string",
    "status": "int32",
    "code": "string",
    "label": "string",
    "confidence": "double",
    "temperature": "double",
    "reason": "string",
    "kind": "string",
    "width": "int32",
    "height": "int32",
    "brightness": "double",
    "sharpness": "double",
    "gate_score": "double",
}
OTHER_VALUES = {
    "string": "river",
    "int32": 500,
    "double": 0.5,
    "timestamp[us, tz=UTC]": datetime(2020, 1, 1, tzinfo=UTC),
}


def find_principals(records: Records) -> set[str]:
    """Return the principals whose payloads the records contain."""
    payloads = [record.payload for record in records if isinstance(record, EntryRecord) and record.payload]
    return {payload.principal for payload in payloads}


def test_filtered_exports_verify(small_database: Connection, verify_records: Verify) -> None:
    """An export filtered by user, model or time verifies, and each record can be encoded and decoded."""
    contents = []
    for header in FILTERS:
        records = tuple(select_records(small_database, header))
        assert records[0] == header
        assert tuple(decode_record(encode_record(record), 1) for record in records) == records
        assert verify_records(records).problems == []
        contents.append((find_principals(records), sum(isinstance(record, EntryRecord) for record in records)))
    ana = {"ana"}  # bob's payloads were erased, and the oldest of both were pruned
    assert contents == [(ana, 19), (ana, 19), (set(), 19), (ana, 19), (set(), 0), (ana, 19), (set(), 0)]


def test_a_window_contains_few_checkpoints(small_database: Connection) -> None:
    """In the export of a time window, each chain ends at an entry that a checkpoint names, not at its last entry."""
    moments = "UPDATE ledger_entries SET at = '2026-11-21' WHERE seq <= 2"  # hashes are not verified here
    small_database.execute(text(moments))
    kinds = Counter(
        json.loads(encode_record(record))["kind"]
        for record in select_records(small_database, StreamHeader(until="2026-11-22"))
    )
    assert kinds == {"header": 1, "checkpoint": 2, "entry": 14}  # of the 16 in both chains


def test_removals_from_a_window_are_found(small_database: Connection, verify_records: Verify) -> None:
    """Removing any record from the export of a time window is found, because each part of a chain ends signed."""
    records = tuple(select_records(small_database, StreamHeader(since="2026-11-20")))
    for index in range(1, len(records)):
        assert verify_records(records[:index] + records[index + 1 :]).problems, records[index]


def test_a_changed_ledger_can_be_exported(small_database: Connection, verify_records: Verify) -> None:
    """Changed rows are exported as they are, and verifying the export finds them."""
    small_database.execute(text("DELETE FROM ledger_heads"))
    small_database.execute(text("UPDATE ledger_checkpoints SET heads = 'none' WHERE number = 6"))
    for header in (StreamHeader(), StreamHeader(since="2026-11-20")):
        assert verify_records(tuple(select_records(small_database, header))).problems


def encode_lines(records: Records) -> str:
    file = io.StringIO()
    deque(write_lines(records, file), 0)
    return file.getvalue()


@given(st.data())
def test_a_changed_line_is_found(small_ledger: Records, verify_records: Verify, data: st.DataObject) -> None:
    """A changed or removed character of any line after the header is found."""
    lines = encode_lines(small_ledger).splitlines()
    index = data.draw(st.integers(0, len(lines) - 1))
    column = data.draw(st.integers(0, len(lines[index]) - 1))
    put = data.draw(st.sampled_from(["", "0", "x", '"', "\\", ",", "}", "\x00"]))
    changed = lines[index][:column] + put + lines[index][column + 1 :]
    try:
        record = decode_record(changed, index + 1)
    except BadExport as error:
        assert str(error).startswith(f"Line {index + 1} is not a ledger record")  # noqa: PT017  (most are, not all)
        return
    if record != small_ledger[index]:
        records = [*small_ledger[:index], record, *small_ledger[index + 1 :]]
        # Only the header is unsigned: it states what was selected, and proves nothing.
        assert verify_records(records).problems or (index == 0 and isinstance(record, StreamHeader))


HOSTILE = [
    "",
    "null",
    "[]",
    "{}",
    "x" * 1000,
    "[" * 100_000,
    '{"kind":"stray","writer":"w","seq":1,"what":"claim"}',
    '{"kind":"cut","writer":"w","seq":true,"hash":"h"}',
    '{"kind":"cut","writer":"w","seq":"1","hash":"h"}',
    '{"kind":"cut","writer":null,"seq":1,"hash":"h"}',
    '{"kind":"cut","writer":"w","seq":1}',
    '{"kind":"cut","writer":"w","seq":1,"hash":"h","more":1}',
    '{"kind":"entry","payload":[],"erasure":null}',
]


@pytest.mark.parametrize("line", HOSTILE)
def test_malformed_lines_are_named(tmp_path: Path, small_ledger: Records, line: str) -> None:
    """A line with missing, additional or wrongly typed fields is rejected, and the error names its number."""
    path = tmp_path / "export.jsonl"
    path.write_text(encode_lines(small_ledger[:2]) + line + "\n")
    with pytest.raises(BadExport, match=r"^Line 3 is not a ledger record"):
        list(read_export(path))


def test_parquet_contains_the_same_records(tmp_path: Path, small_ledger: Records) -> None:
    """Records are read from Parquet as they were written, and the columns can be queried without decoding."""
    path = tmp_path / "export.parquet"
    assert tuple(write_rows(small_ledger, path)) == small_ledger
    assert tuple(read_export(path)) == small_ledger
    table = pyarrow.parquet.read_table(path, filters=[("label", "=", "forest")])
    assert pyarrow.compute.unique(table["model"]).to_pylist() == ["stub-v1.0"]
    assert table["confidence"].to_pylist() == [0.75] * sum(bool(find_principals([record])) for record in small_ledger)


def test_parquet_columns_are_documented(tmp_path: Path, small_ledger: Records) -> None:
    """The columns have the documented names and types, and the time can be compared and grouped by day."""
    path = tmp_path / "export.parquet"
    deque(write_rows(small_ledger, path), 0)
    table = pyarrow.parquet.read_table(path)
    assert {field.name: str(field.type) for field in table.schema} == COLUMNS
    documented = re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", (ROOT / "docs" / "ledger.md").read_text(), re.MULTILINE)
    assert dict(documented) == COLUMNS
    entries = [record.entry for record in small_ledger if isinstance(record, EntryRecord)]
    times = table.filter(pyarrow.compute.is_valid(table["id"]))["at"]
    assert [time.isoformat(timespec="microseconds") for time in times.to_pylist()] == [
        entry.at.replace("Z", "+00:00") for entry in entries
    ]
    days = pyarrow.compute.floor_temporal(times, unit="day")
    assert {day.date().isoformat() for day in days.to_pylist()} == {entry.at[:10] for entry in entries}


def test_older_parquet_exports_are_read(tmp_path: Path, small_ledger: Records) -> None:
    """An export of release 0.1.0, with fewer columns and times as text, is read, and a changed time in it is found."""
    path, changed = tmp_path / "export.parquet", tmp_path / "changed.parquet"
    deque(write_rows(small_ledger, path), 0)
    table = pyarrow.parquet.read_table(path).drop_columns(["temperature", "reason", "kind"])
    texts = [record.entry.at if isinstance(record, EntryRecord) else None for record in small_ledger]
    index = table.column_names.index("at")
    pyarrow.parquet.write_table(table.set_column(index, "at", pyarrow.array(texts, pyarrow.string())), changed)
    assert tuple(read_export(changed)) == small_ledger
    texts[-2] = "2020-01-01T00:00:00.000000Z"
    pyarrow.parquet.write_table(table.set_column(index, "at", pyarrow.array(texts, pyarrow.string())), changed)
    with pytest.raises(BadExport, match="contradict"):
        list(read_export(changed))


def test_changed_parquet_columns_are_found(tmp_path: Path, small_ledger: Records) -> None:
    """A column that contradicts its record, or is missing, is found."""
    path, changed = tmp_path / "export.parquet", tmp_path / "changed.parquet"
    deque(write_rows(small_ledger, path), 0)
    table = pyarrow.parquet.read_table(path)
    index = table["label"].to_pylist().index("forest")
    for name in table.column_names:
        values = table[name].to_pylist()
        values[index] = OTHER_VALUES[str(table.schema.field(name).type)]
        column = pyarrow.array(values, table.schema.field(name).type)
        pyarrow.parquet.write_table(table.set_column(table.column_names.index(name), name, column), changed)
        with pytest.raises(BadExport, match=rf"(Line|row) {index + 1} "):
            list(read_export(changed))
    pyarrow.parquet.write_table(table.drop_columns(["label"]), changed)
    with pytest.raises(BadExport):
        list(read_export(changed))


def test_truncated_files_are_found(tmp_path: Path, small_ledger: Records, verify_records: Verify) -> None:
    """A truncated file is found in either format; a header alone is the export of an empty ledger."""
    rows, lines = tmp_path / "export.parquet", tmp_path / "export.jsonl"
    deque(write_rows(small_ledger, rows), 0)
    rows.write_bytes(rows.read_bytes()[:-100])
    with pytest.raises(BadExport, match="cannot be read as Parquet"):
        list(read_export(rows))
    whole = encode_lines(small_ledger).splitlines(keepends=True)
    for count in (0, *range(2, len(whole))):
        lines.write_text("".join(whole[:count]))
        assert verify_records(list(read_export(lines))).problems, count


def test_a_changed_ledger_can_be_exported_to_parquet(tmp_path: Path, small_database: Connection) -> None:
    """A ledger with malformed documents is exported, and its records are read back as they were written."""
    small_database.execute(text("UPDATE ledger_payloads SET document = '{}'"))
    records, path = tuple(select_records(small_database, StreamHeader())), tmp_path / "export.parquet"
    assert tuple(write_rows(records, path)) == records
    assert tuple(read_export(path)) == records
