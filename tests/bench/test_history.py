"""Targets of a benchmark, and the file that keeps its results."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from bench.history import COLUMNS, HISTORY, Row, append_row, describe_commit, describe_machine
from bench.targets import Target, format_targets
from tests.support.paths import ROOT

ROW = Row("2026-11-26", "0123abc", "2 x Some CPU", 5, 0.82, 0.9, 0.91, 1.8, 199.4, 231.0, 0.97, 2.6)


def test_rows_are_appended(tmp_path: Path) -> None:
    """A new file begins with the names of the columns, and each run adds one row."""
    path = tmp_path / "history.csv"
    append_row(ROW, path)
    append_row(ROW, path)
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    assert tuple(header) == COLUMNS
    measured = ["0.820", "0.900", "0.910", "1.800", "199.400", "231.000", "0.970", "2.600"]
    assert rows == [["2026-11-26", "0123abc", "2 x Some CPU", "5", *measured]] * 2


def test_other_columns_are_rejected(tmp_path: Path) -> None:
    """A row is not appended to a file with other columns."""
    path = tmp_path / "history.csv"
    path.write_text("date,commit\n")
    with pytest.raises(ValueError, match="has the columns date,commit"):
        append_row(ROW, path)
    assert path.read_text() == "date,commit\n"


def test_the_committed_history_has_these_columns() -> None:
    """Rows can be appended to bench/history/history.csv, and each of its rows is complete."""
    with HISTORY.open(newline="") as file:
        header, *rows = csv.reader(file)
    assert tuple(header) == COLUMNS
    assert [row for row in rows if len(row) != len(COLUMNS)] == []


def test_machines_are_described_by_kind(tmp_path: Path) -> None:
    """A machine is described by the number and model of its processors, not by its name."""
    processors = tmp_path / "cpuinfo"
    processors.write_text(
        "processor : 0\nmodel name\t: Some CPU @ 2.0GHz\nprocessor : 1\nmodel name\t: Some CPU @ 2.0GHz\n"
    )
    assert describe_machine(processors).endswith(" x Some CPU @ 2.0GHz")
    processors.write_text("Features : fp asimd\n")
    assert describe_machine(processors).endswith(" x unknown")


def test_the_commit_is_abbreviated() -> None:
    """The commit is described by its abbreviated hash."""
    commit = describe_commit(ROOT).removesuffix("-dirty")
    assert 7 <= len(commit) <= 40
    assert set(commit) <= set("0123456789abcdef")


def test_targets_are_met_or_missed() -> None:
    """A line for each target has the measured value, the limit and the verdict; NaN meets none."""
    lines = format_targets(
        [
            Target("ratio", 0.9, 0.9, is_minimum=True),
            Target("ratio", 0.894, 0.9, is_minimum=True),
            Target("memory", 200.6, 200, "MB"),
            Target("ready", 1.0, 1.0, "s"),
            Target("factor", float("nan"), 3.0, "x"),
        ]
    )
    assert [line.split() for line in lines[1:]] == [
        ["ratio", "0.90", "at", "least", "0.90", "met"],
        ["ratio", "0.89", "at", "least", "0.90", "MISSED"],
        ["memory", "201", "MB", "at", "most", "200", "MB", "MISSED"],
        ["ready", "1.00", "s", "at", "most", "1.00", "s", "met"],
        ["factor", "nan", "x", "at", "most", "3.00", "x", "MISSED"],
    ]
