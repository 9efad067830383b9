"""Reading exports of either format."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from monitoring.ledger.exports.lines import decode_record
from monitoring.ledger.records import Record


def read_export(path: Path) -> Iterator[Record]:
    """Yield the records of an export in either format. Raises BadExport, OSError; ImportError without pyarrow."""
    with path.open("rb") as file:
        is_parquet = file.read(4) == b"PAR1"
    if is_parquet:
        from monitoring.ledger.exports.parquet import read_rows  # pyarrow is optional, and large

        yield from read_rows(path)
        return
    with path.open(encoding="utf-8", errors="replace") as lines:
        yield from (decode_record(line, number) for number, line in enumerate(lines, 1))
