"""The file bench/history/history.csv with the results of `make bench HISTORY=1`, one row for each run."""

from __future__ import annotations

import csv
import subprocess
from dataclasses import astuple, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

from model.backends.processor import CPUINFO, MODEL, read_processor
from monitoring.machine.cgroups import count_processors
from tests.support.paths import ROOT

HISTORY = ROOT / "bench" / "history" / "history.csv"


@dataclass(frozen=True, slots=True)
class Row:
    """One run. A ratio is the gateway's throughput divided by that of bare processes in the same run.

    `commit` ends with "-dirty" if files differed from it. `machine` is the kind of machine, not its name: rows of
    different kinds cannot be compared.
    """

    date: str
    commit: str
    machine: str
    rounds: int
    ratio_1: float
    ratio_4: float
    ratio_16: float
    added_ms: float
    rest_mb: float
    loaded_mb: float
    ready_s: float
    overload_factor: float


COLUMNS = tuple(field.name for field in fields(Row))


def append_row(row: Row, path: Path = HISTORY) -> None:
    """Append the row; a new file begins with the names of the columns. Raises ValueError if the file has others."""
    if path.exists():
        with path.open(newline="") as file:
            columns = tuple(next(csv.reader(file), ()))
        if columns != COLUMNS:
            raise ValueError(f"{path} has the columns {','.join(columns)}; this version writes {','.join(COLUMNS)}")
    with path.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if file.tell() == 0:
            writer.writerow(COLUMNS)
        writer.writerow(f"{value:.3f}" if isinstance(value, float) else value for value in astuple(row))


def format_today() -> str:
    """Return today's date in UTC, in ISO 8601."""
    return datetime.now(UTC).date().isoformat()


def describe_commit(repository: Path = ROOT) -> str:
    """Return the abbreviated commit, with "-dirty" if files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    return subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True).stdout.strip()


def describe_machine(cpuinfo: Path = CPUINFO) -> str:
    """Return the number of processors that this process may use and their model, such as "2 x AMD EPYC 7B13"."""
    return f"{count_processors()} x {read_processor(cpuinfo).get(MODEL, 'unknown')}"
