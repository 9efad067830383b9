"""`atalaya audit`: read, check, hand out and shorten the record of access."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO, TypeVar

import typer

from api.commands.database import command_actor, run_with_engine
from api.commands.output import JsonFlag, print_json
from api.commands.times import parse_time
from api.errors import CommandFailed
from api.settings import load_settings

if TYPE_CHECKING:
    from monitoring.audit.chain import Anchor, Finding
    from monitoring.audit.events import Entry
    from monitoring.audit.store import AuditStore, Filter

app = typer.Typer(help="Read and check the record of access.", invoke_without_command=True)

T = TypeVar("T")
_NEWEST = 50


@app.callback()
def audit(
    context: typer.Context,
    event: Annotated[str | None, typer.Option(help="Only this event, for example token.")] = None,
    since: Annotated[
        datetime | None,
        typer.Option(
            parser=parse_time, metavar="TIME", help=f"From this moment on (ISO 8601); the newest {_NEWEST} if absent."
        ),
    ] = None,
    export: Annotated[
        Path | None, typer.Option(help="Write all of it to a file, or - for standard output, as JSON lines.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Print the record of access, oldest first."""
    if context.invoked_subcommand is not None:
        return
    from monitoring.audit.store import Filter

    wanted = Filter(event=event, since=since)
    if export is not None:
        _export(wanted, export)
        return
    entries = _found(wanted)
    if as_json:
        print_json([entry.document() for entry in entries])
        return
    for entry in entries:
        typer.echo(_line(entry))


@app.command("verify")
def verify(
    anchor: Annotated[
        str | None, typer.Option(help="SEQ:HASH of an earlier check, kept elsewhere: the entry must still be there.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Check every entry's hash and the order of all; say which entry is wrong."""
    noted = _anchor(anchor) if anchor else None
    finding = _with_store(lambda store: store.verify(noted))
    if as_json:
        print_json({"ok": finding.problem is None, **_as_dict(finding)})
    if finding.problem is not None:
        raise CommandFailed(finding.problem)
    if not as_json:
        typer.echo(f"{finding.entries} entries, unchanged. Keep this elsewhere: {finding.seq}:{finding.hash}")


@app.command("prune")
def prune(as_json: JsonFlag = False) -> None:
    """Remove the entries older than MONITORING__AUDIT_KEEP_DAYS; what is left still verifies."""
    days = load_settings().monitoring.audit_keep_days
    before = datetime.now(UTC) - timedelta(days=days)
    removed = _with_store(lambda store: store.prune(before, command_actor()))
    if as_json:
        print_json({"removed": removed})
    else:
        typer.echo(f"{removed} entries older than {days} days removed.")


def _found(wanted: Filter) -> Sequence[Entry]:
    """Oldest first: everything since a moment, or the newest."""

    async def find(store: AuditStore) -> Sequence[Entry]:
        if wanted.since is None:
            return list(reversed(await store.newest(wanted, _NEWEST)))
        return [entry async for entry in store.every(wanted)]

    return _with_store(find)


def _export(wanted: Filter, path: Path) -> None:
    """One entry a line, whole, so that whoever gets the file can check the hashes."""

    async def write(store: AuditStore) -> int:
        written = 0
        with nullcontext(sys.stdout) if str(path) == "-" else _private(path) as file:
            async for entry in store.every(wanted):
                print(json.dumps(entry.document()), file=file)
                written += 1
        return written

    typer.echo(f"{_with_store(write)} entries exported.", err=True)


def _private(path: Path) -> TextIO:
    """Readable by its owner alone: addresses are in it."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w")


def _with_store(act: Callable[[AuditStore], Awaitable[T]]) -> T:
    from monitoring.audit.store import AuditStore

    return run_with_engine(load_settings(), lambda engine: act(AuditStore(engine)))


def _anchor(text: str) -> Anchor:
    """Raises BadParameter."""
    from monitoring.audit.chain import Anchor

    seq, _, digest = text.partition(":")
    if not seq.isdecimal() or not digest:
        raise typer.BadParameter(
            "--anchor: give it as `atalaya audit verify` printed it, a number, a colon and a hash."
        )
    return Anchor(int(seq), digest)


def _as_dict(finding: Finding) -> dict[str, object]:
    return {"entries": finding.entries, "seq": finding.seq, "hash": finding.hash, "problem": finding.problem}


def _line(entry: Entry) -> str:
    """What matters to people; the rest is in the JSON."""
    detail = entry.document()["detail"]
    more = detail.items() if isinstance(detail, dict) else [("detail", entry.detail)]
    named = [("actor", entry.actor), ("target", entry.target), ("address", entry.address), *more]
    times = f" x{entry.count}" if entry.count > 1 else ""
    words = " ".join(f"{name}={_quoted(str(value))}" for name, value in named if value)
    return f"{entry.seq} {entry.at} {entry.event} {entry.outcome}{times} {words}"


def _quoted(value: str) -> str:
    """One word, whatever is in it: an entry that somebody changed must not speak to the terminal."""
    return value if value.isprintable() and " " not in value else json.dumps(value)
