"""Copies of a ledger that verify like the original: JSON lines, or the same lines in Parquet beside more columns."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from sqlalchemy import Connection, Select, func, select

from monitoring.errors import BadExport
from monitoring.ledger.entries import GENESIS, Checkpoint, Claim, Entry, Erasure, Head, Payload, Stump, parse_claims
from monitoring.ledger.payloads import parsed
from monitoring.ledger.records import (
    Cut,
    Header,
    Line,
    Orphan,
    Record,
    checkpoints_in,
    lines_in,
    read_head,
    records_in,
)
from monitoring.ledger.tables import ledger_entries, ledger_heads, ledger_stumps

_KINDS: dict[str, type[Any]] = {
    "header": Header,
    "stump": Stump,
    "checkpoint": Checkpoint,
    "cut": Cut,
    "head": Head,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}


def exported(connection: Connection, header: Header) -> Iterator[Record]:
    """The records that the header's filters ask for, and as many more, without payloads, as prove them."""
    records = _window(connection, header) if header.cut else records_in(connection)
    for record in records:
        if isinstance(record, Header):
            yield header
        elif isinstance(record, Line):
            yield record if _wanted(record, header) else replace(record, payload=None)
        elif not isinstance(record, Orphan):
            yield record


def _wanted(line: Line, header: Header) -> bool:
    payload, at = line.payload, line.entry.at
    if payload is None:
        return True
    inside = at >= header.since and (not header.until or at < header.until)
    return inside and header.principal in ("", payload.principal) and header.model in ("", payload.model)


def _window(connection: Connection, header: Header) -> Iterator[Record]:
    """Of each chain the piece that the window covers, on to the next entry that a checkpoint names, or to its head."""
    yield header
    pieces = {row.writer: (row.first, row.last) for row in connection.execute(_pieces(header))}
    ends: dict[str, int] = {}
    for checkpoint in checkpoints_in(connection):
        needed = False
        for claim in _claims(checkpoint):
            if claim.writer in pieces and claim.writer not in ends and claim.seq >= pieces[claim.writer][1]:
                ends[claim.writer], needed = claim.seq, True
        if needed:
            yield checkpoint
    for writer, (first, _) in sorted(pieces.items()):
        yield from _beginning(connection, writer, first - 1)
        for line in lines_in(connection, writer, first - 1):
            yield line
            if isinstance(line, Line) and line.entry.seq == ends.get(writer):
                break
        else:
            row = connection.execute(select(ledger_heads).where(ledger_heads.c.writer == writer)).one_or_none()
            if row is not None:  # where one is missing, the check of the export says so
                yield read_head(row)


def _claims(checkpoint: Checkpoint) -> list[Claim]:
    """None where they were changed: the check of the export says so."""
    try:
        return parse_claims(checkpoint.heads)
    except ValueError:
        return []


def _pieces(header: Header) -> Select[Any]:
    columns = ledger_entries.c
    wanted = select(columns.writer, func.min(columns.seq).label("first"), func.max(columns.seq).label("last"))
    wanted = wanted.where(columns.at >= header.since).group_by(columns.writer)
    return wanted.where(columns.at < header.until) if header.until else wanted


def _beginning(connection: Connection, writer: str, seq: int) -> Iterator[Record]:
    """What says after which entry, number `seq`, a piece begins."""
    stump = connection.execute(select(ledger_stumps).where(ledger_stumps.c.writer == writer)).one_or_none()
    if stump is not None and stump.seq == seq:
        yield Stump(*stump)
    elif seq > 0:
        place = ledger_entries.c.writer == writer, ledger_entries.c.seq == seq
        digest = connection.execute(select(ledger_entries.c.hash).where(*place)).scalar_one_or_none()
        yield Cut(writer, seq, digest or GENESIS)


def line_of(record: Record) -> str:
    """A record as one line of JSON."""
    if isinstance(record, Line):
        entry, payload, erasure = record.entry, record.payload, record.erasure
        parts = {"payload": payload and _members(payload), "erasure": erasure and _members(erasure)}
        document = {"kind": "entry", **_members(entry), **parts}
    else:
        document = {"kind": _NAMES[type(record)], **_members(record)}
    return json.dumps(document, separators=(",", ":"))


def _members(part: Any) -> dict[str, Any]:
    """What `asdict` tells, in a tenth of the time."""
    return {name: getattr(part, name) for name in part.__slots__}


def record_of(line: str, number: int) -> Record:
    """Raises BadExport, naming the line's number."""
    try:
        document = parsed(line)
        kind = document.pop("kind")
        if kind != "entry":
            return _typed(_KINDS[kind], document)  # type: ignore[no-any-return]
        payload, erasure = document.pop("payload"), document.pop("erasure")
        return Line(
            _typed(Entry, document),
            _typed(Payload, payload) if payload is not None else None,
            _typed(Erasure, erasure) if erasure is not None else None,
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadExport(
            f"Line {number} is no record of a ledger: the file was damaged, or is something else."
        ) from error


def _typed(kind: type[Any], document: dict[str, Any]) -> Any:
    """Raises TypeError for other fields, or values of another kind than they are declared with."""
    made = kind(**document)
    if any(type(value).__name__ != kind.__annotations__[name] for name, value in document.items()):
        raise TypeError
    return made


def write_lines(records: Iterable[Record], file: TextIO) -> Iterator[Record]:
    """Write each record, and pass it on to whoever counts."""
    for record in records:
        file.write(line_of(record) + "\n")
        yield record


def read_export(path: Path) -> Iterator[Record]:
    """The records of an export of either form. Raises BadExport, OSError, and ImportError without pyarrow."""
    with path.open("rb") as file:
        parquet = file.read(4) == b"PAR1"
    if parquet:
        from monitoring.ledger.parquet import read_rows

        yield from read_rows(path)
        return
    with path.open(encoding="utf-8", errors="replace") as lines:
        yield from (record_of(line, number) for number, line in enumerate(lines, 1))
