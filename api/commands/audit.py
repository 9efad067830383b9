"""`atalaya audit`: print, verify, export and prune the audit log."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from sqlalchemy.ext.asyncio import AsyncEngine

from api.commands.database import command_actor, recorded_run, run_with_engine
from api.commands.options.anchors import parse_anchor
from api.commands.options.confirmation import DryRun, Yes, confirm
from api.commands.options.times import parse_time
from api.commands.output import JsonFlag, format_count, format_entries, open_text_output, print_json
from api.errors import CommandFailed
from api.settings import Settings, load_settings
from auth.accounts.store import UserStore
from auth.api_keys.store import KeyStore
from auth.clients import ClientStore
from monitoring.audit.events import AuditEntry
from monitoring.audit.store import AuditFilter, AuditStore
from monitoring.chains.anchors import Anchor
from monitoring.chains.reports import VerificationReport
from monitoring.tasks.runs import Task

app = typer.Typer(invoke_without_command=True)

T = TypeVar("T")
_NEWEST = 50


@app.callback()
def audit(
    context: typer.Context,
    event: Annotated[str | None, typer.Option(help="Only this event, for example token.")] = None,
    since: Annotated[
        datetime | None,
        typer.Option(
            parser=parse_time,
            metavar="TIME",
            help=f"Only entries from this time on (ISO 8601). Default: the newest {_NEWEST}.",
        ),
    ] = None,
    export: Annotated[
        Path | None, typer.Option(help="Write the entries to a file as JSON lines; - for standard output.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Print the audit log, oldest entry first."""
    if context.invoked_subcommand is not None:
        return
    selected = AuditFilter(event=event, since=since)
    if export is not None:
        _export(selected, export, as_json)
        return
    entries, names = _read_entries(selected)
    if as_json:
        print_json([entry.to_dict() for entry in entries])
        return
    for entry in entries:
        typer.echo(_format_entry(entry, names))


@app.command("verify")
def verify(
    anchor: Annotated[
        Anchor | None,
        typer.Option(
            parser=parse_anchor,
            metavar="SEQ:HASH",
            help="Require that the log contains this entry, which an earlier verification printed.",
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Verify the hash and the order of all entries; report the first invalid one."""
    with recorded_run(Task.AUDIT_VERIFY):
        report = _with_store(lambda store: store.verify(anchor))
        last = report.anchor
        if as_json:
            result = {"entries": report.entries, "seq": last.number, "hash": last.hash, "problem": report.problem}
            print_json({"ok": report.problem is None, **result})
        _check_report(report)
    if not as_json:
        typer.echo(_format_report(report))


def verify_log() -> str:
    """Verify the audit log, and return what `atalaya audit verify` prints. Raises CommandFailed."""
    with recorded_run(Task.AUDIT_VERIFY):
        report = _with_store(lambda store: store.verify(None))
        _check_report(report)
    return _format_report(report)


def _check_report(report: VerificationReport) -> None:
    """Raises CommandFailed."""
    if report.problem is not None:
        raise CommandFailed(report.problem)


def _format_report(report: VerificationReport) -> str:
    anchor = f"{report.anchor.number}:{report.anchor.hash}"
    return f"{format_entries(report.entries)}, unchanged. Keep this anchor outside the database: {anchor}"


@app.command("prune")
def prune(yes: Yes = False, dry_run: DryRun = False, as_json: JsonFlag = False) -> None:
    """Remove the entries older than MONITORING__AUDIT_KEEP_DAYS; the remaining ones stay verifiable."""
    settings = load_settings()
    age = f"older than {format_count(settings.monitoring.audit_keep_days, 'day')}"
    count = count_older_entries(settings)
    if not dry_run:
        confirm(f"Remove {format_entries(count)} {age} from the audit log permanently?", yes=yes, needed=count > 0)
        count = prune_audit_log(settings)
    if as_json:
        print_json({"would_remove" if dry_run else "removed": count})
    else:
        typer.echo(f"{format_entries(count)} {age} {'would be ' if dry_run else ''}removed.")


def count_older_entries(settings: Settings) -> int:
    """Return how many entries `prune_audit_log` would remove. Raises DatabaseUnavailable, AuditUnavailable."""
    before = _compute_retention_cutoff(settings)
    return run_with_engine(settings, lambda engine: AuditStore(engine).count_older(before))


def prune_audit_log(settings: Settings) -> int:
    """Remove the entries older than MONITORING__AUDIT_KEEP_DAYS; returns how many.

    Raises DatabaseUnavailable, AuditUnavailable, AuditDamaged.
    """
    before = _compute_retention_cutoff(settings)
    return run_with_engine(settings, lambda engine: AuditStore(engine).prune(before, command_actor()))


def _compute_retention_cutoff(settings: Settings) -> datetime:
    return datetime.now(UTC) - timedelta(days=settings.monitoring.audit_keep_days)


def _read_entries(selected: AuditFilter) -> tuple[Sequence[AuditEntry], Mapping[str, str]]:
    """Return the selected entries, oldest first, and the names behind their ids.

    Without a start time, only the newest `_NEWEST` entries are returned.
    """

    async def read(engine: AsyncEngine) -> tuple[Sequence[AuditEntry], Mapping[str, str]]:
        store, names = AuditStore(engine), await _read_names(engine)
        if selected.since is None:
            return list(reversed(await store.list_newest(selected, _NEWEST))), names
        return [entry async for entry in store.iterate(selected)], names

    return run_with_engine(load_settings(), read)


async def _read_names(engine: AsyncEngine) -> Mapping[str, str]:
    """Return the displayed names of users, clients and keys, such as user:NAME, by their ids in entries (user:ID)."""
    users = {f"user:{user.id}": user.name for user in await UserStore(engine).list()}
    clients = {f"client:{client.id}": client.name for client in await ClientStore(engine).list()}
    keys = {f"key:{key.id}": key.terms.name for key in await KeyStore(engine).list()}
    return {target: f"{target.partition(':')[0]}:{name}" for target, name in (users | clients | keys).items()}


def _export(selected: AuditFilter, path: Path, as_json: bool) -> None:
    """Write complete entries, one per line, so that a recipient can verify the hashes. They contain addresses."""
    if str(path) == "-" and as_json:
        raise typer.BadParameter("--json also writes to standard output. Name a file, or omit --json.")
    if path.exists() and not path.is_file():
        raise typer.BadParameter(f"{path} is not a file.")

    async def write(store: AuditStore) -> int:
        written = 0
        with open_text_output(path) as file:
            async for entry in store.iterate(selected):
                print(json.dumps(entry.to_dict()), file=file)
                written += 1
        return written

    entries = _with_store(write)
    if as_json:
        print_json({"entries": entries})
    else:
        typer.echo(f"{format_entries(entries)} exported.", err=True)


def _with_store(act: Callable[[AuditStore], Awaitable[T]]) -> T:
    return run_with_engine(load_settings(), lambda engine: act(AuditStore(engine)))


def _format_entry(entry: AuditEntry, names: Mapping[str, str]) -> str:
    """Format the fields that operators need, with names instead of ids. The JSON form has all fields."""
    detail = entry.to_dict()["detail"]
    details = detail.items() if isinstance(detail, dict) else [("detail", entry.detail)]
    actor, target = (names.get(value, value) for value in (entry.actor, entry.target))
    fields = [("actor", actor), ("target", target), ("address", entry.address), *details]
    times = f" x{entry.count}" if entry.count > 1 else ""
    words = " ".join(f"{name}={_quote(str(value))}" for name, value in fields if value)
    return f"{entry.seq} {entry.at} {entry.event} {entry.outcome}{times} {words}"


def _quote(value: str) -> str:
    """Return one printable word, because an altered entry must not send control characters to the terminal."""
    return value if value.isprintable() and " " not in value else json.dumps(value)
