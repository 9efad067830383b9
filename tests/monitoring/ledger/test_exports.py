"""Exports of a ledger, as JSON lines and in Parquet: what they hold, and that no change to one goes unnoticed."""

from __future__ import annotations

import io
import json
from collections import Counter, deque
from collections.abc import Callable, Sequence
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
from monitoring.ledger.exports import exported, line_of, read_export, record_of, write_lines
from monitoring.ledger.parquet import write_rows
from monitoring.ledger.records import Header, Line, Record

Check = Callable[..., Any]
Records = Sequence[Record]

FILTERS = (
    Header(),
    Header(principal="ana"),
    Header(model="other"),
    Header(since="2026-11-20"),
    Header(until="2026-11-20"),
    Header(since="2026-11-20", until="2026-11-24", principal="ana"),
    Header(since="2026-11-24"),
)


def shown(records: Records) -> set[str]:
    """Whose payloads are in it."""
    payloads = [record.payload for record in records if isinstance(record, Line) and record.payload]
    return {payload.principal for payload in payloads}


def test_whatever_is_left_out_the_rest_verifies(at_rest: Connection, check: Check) -> None:
    """An export of a user, a model or a window of time proves what it holds, and each line comes back as it was."""
    held = []
    for header in FILTERS:
        records = tuple(exported(at_rest, header))
        assert records[0] == header
        assert tuple(record_of(line_of(record), 1) for record in records) == records
        assert check(records).problems == []
        held.append((shown(records), sum(isinstance(record, Line) for record in records)))
    ana = {"ana"}  # the other one's were erased, and the oldest of both pruned
    assert held == [(ana, 19), (ana, 19), (set(), 19), (ana, 19), (set(), 0), (ana, 19), (set(), 0)]


def test_a_window_needs_few_checkpoints(at_rest: Connection) -> None:
    """A window's pieces run on to what a checkpoint names, without payloads, and not to the end of the chains."""
    moments = "UPDATE ledger_entries SET at = '2026-11-21' WHERE seq <= 2"  # the hashes no longer fit: not asked here
    at_rest.execute(text(moments))
    kinds = Counter(json.loads(line_of(record))["kind"] for record in exported(at_rest, Header(until="2026-11-22")))
    assert kinds == {"header": 1, "checkpoint": 2, "entry": 14}  # of the 16 in both chains


def test_nothing_can_be_taken_out_of_a_window(at_rest: Connection, check: Check) -> None:
    """Each piece of a chain ends in something signed: no record of a window's export can be left out."""
    records = tuple(exported(at_rest, Header(since="2026-11-20")))
    for place in range(1, len(records)):
        assert check(records[:place] + records[place + 1 :]).problems, records[place]


def test_an_export_of_a_changed_ledger_can_be_made(at_rest: Connection, check: Check) -> None:
    """What was changed in the database is handed out as it is, for its check to find."""
    at_rest.execute(text("DELETE FROM ledger_heads"))
    at_rest.execute(text("UPDATE ledger_checkpoints SET heads = 'none' WHERE number = 6"))
    for header in (Header(), Header(since="2026-11-20")):
        assert check(tuple(exported(at_rest, header))).problems


def lines_of(records: Records) -> str:
    file = io.StringIO()
    deque(write_lines(records, file), 0)
    return file.getvalue()


@given(st.data())
def test_a_changed_line_is_found(small_ledger: Records, check: Check, data: st.DataObject) -> None:
    """Any character of any line that becomes another, or goes, makes another record, or none: it is found."""
    lines = lines_of(small_ledger).splitlines()
    place = data.draw(st.integers(0, len(lines) - 1))
    column = data.draw(st.integers(0, len(lines[place]) - 1))
    put = data.draw(st.sampled_from(["", "0", "x", '"', "\\", ",", "}", "\x00"]))
    changed = lines[place][:column] + put + lines[place][column + 1 :]
    try:
        record = record_of(changed, place + 1)
    except BadExport as error:
        assert str(error).startswith(f"Line {place + 1} is no record")  # noqa: PT017  (most are, not all)
        return
    if record != small_ledger[place]:
        records = [*small_ledger[:place], record, *small_ledger[place + 1 :]]
        # Only the header is nobody's statement: it says what was asked for, and nothing is proven by it.
        assert check(records).problems or (place == 0 and isinstance(record, Header))


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
def test_a_line_that_is_no_record_is_named(tmp_path: Path, small_ledger: Records, line: str) -> None:
    """Fields that are missing, too many or of another kind are no record: the line's number is told."""
    path = tmp_path / "export.jsonl"
    path.write_text(lines_of(small_ledger[:2]) + line + "\n")
    with pytest.raises(BadExport, match=r"^Line 3 is no record of a ledger"):
        list(read_export(path))


def test_parquet_holds_the_same(tmp_path: Path, small_ledger: Records) -> None:
    """The records come back from Parquet as they were, and its columns can be asked without knowing of records."""
    path = tmp_path / "export.parquet"
    assert tuple(write_rows(small_ledger, path)) == small_ledger
    assert tuple(read_export(path)) == small_ledger
    table = pyarrow.parquet.read_table(path, filters=[("label", "=", "forest")])
    assert pyarrow.compute.unique(table["model"]).to_pylist() == ["stub-v1.0"]
    assert table["confidence"].to_pylist() == [0.75] * sum(bool(shown([record])) for record in small_ledger)


def test_parquet_columns_are_checked(tmp_path: Path, small_ledger: Records) -> None:
    """A column that does not say what its record says is found: analysts read the columns."""
    path, changed = tmp_path / "export.parquet", tmp_path / "changed.parquet"
    deque(write_rows(small_ledger, path), 0)
    table = pyarrow.parquet.read_table(path)
    place = table["label"].to_pylist().index("forest")
    for name in table.column_names:
        values = table[name].to_pylist()
        values[place] = {"string": "river", "int32": 500, "double": 0.5}[str(table.schema.field(name).type)]
        column = pyarrow.array(values, table.schema.field(name).type)
        pyarrow.parquet.write_table(table.set_column(table.column_names.index(name), name, column), changed)
        with pytest.raises(BadExport, match=rf"(Line|row) {place + 1} "):
            list(read_export(changed))
    pyarrow.parquet.write_table(table.drop_columns(["label"]), changed)
    with pytest.raises(BadExport):
        list(read_export(changed))


def test_half_a_file_is_no_export(tmp_path: Path, small_ledger: Records, check: Check) -> None:
    """A file that was cut off is found, in either form; with nothing but its header it is that of an empty ledger."""
    rows, lines = tmp_path / "export.parquet", tmp_path / "export.jsonl"
    deque(write_rows(small_ledger, rows), 0)
    rows.write_bytes(rows.read_bytes()[:-100])
    with pytest.raises(BadExport, match="cannot be read as Parquet"):
        list(read_export(rows))
    whole = lines_of(small_ledger).splitlines(keepends=True)
    for count in (0, *range(2, len(whole))):
        lines.write_text("".join(whole[:count]))
        assert check(list(read_export(lines))).problems, count


def test_a_changed_ledger_goes_into_columns_as_far_as_it_fits(tmp_path: Path, at_rest: Connection) -> None:
    """A document that is none leaves its columns empty, and the export comes back as it is."""
    at_rest.execute(text("UPDATE ledger_payloads SET document = '{}'"))
    records, path = tuple(exported(at_rest, Header())), tmp_path / "export.parquet"
    assert tuple(write_rows(records, path)) == records
    assert tuple(read_export(path)) == records
