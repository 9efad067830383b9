"""`atalaya ledger verify`: verify the ledger, or an export of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated

import typer
from msgspec import to_builtins
from msgspec.structs import asdict

from api.commands.database import recorded_run
from api.commands.ledger.database import open_snapshot
from api.commands.options.anchors import parse_anchor
from api.commands.output import JsonFlag, format_count, format_entries, print_json
from api.errors import CommandFailed, SettingsError
from api.settings import load_settings
from api.settings.home import describe_installation
from monitoring.chains.anchors import Anchor
from monitoring.chains.signing import Signer, Verifier
from monitoring.ledger.exports.files import read_export
from monitoring.ledger.records import Record, StreamHeader, read_records
from monitoring.ledger.verification import stream
from monitoring.ledger.verification.report import LedgerReport
from monitoring.tasks.runs import Task

NO_PARQUET = f"Parquet needs pyarrow, which is not installed. {describe_installation('parquet.txt')}"

PublicKeys = Annotated[
    list[str] | None,
    typer.Option(
        "--public-key",
        help="Accept signatures of this key, as `atalaya ledger key` prints it; repeat it if the key has changed. "
        "Default: the configured key and LEDGER__PUBLIC_KEYS.",
    ),
]

_NO_KEY = (
    "There is no key to verify with. Use --public-key with the key that `atalaya ledger key` prints where the ledger "
    "was written."
)


def verify(
    export: Annotated[Path | None, typer.Argument(help="Verify this export instead of the database.")] = None,
    public_key: PublicKeys = None,
    anchor: Annotated[
        Anchor | None,
        typer.Option(
            parser=parse_anchor,
            metavar="NUMBER:HASH",
            help="Require that the ledger contains this checkpoint, which an earlier verification printed.",
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Verify all entries, all signed statements and their order; report what is wrong."""
    verifier = Verifier(public_key or read_configured_keys(of_export=export is not None))
    with recorded_run(Task.LEDGER_VERIFY) if export is None else nullcontext():
        with _open_records(export) as records:
            report = stream.verify(records, verifier, anchor)
        if as_json:
            print_json({"ok": not report.problems, **to_builtins(report)})
        _check_report(report)
    if not as_json:
        typer.echo(_format_report(report))


def verify_database(earlier_keys: Sequence[str]) -> str:
    """Verify the ledger in the database, and return what `atalaya ledger verify` prints. Raises CommandFailed."""
    verifier = Verifier([*read_configured_keys(), *earlier_keys])
    with recorded_run(Task.LEDGER_VERIFY):
        with _open_records(None) as records:
            report = stream.verify(records, verifier)
        _check_report(report)
    return _format_report(report)


def _check_report(report: LedgerReport) -> None:
    """Raises CommandFailed."""
    if report.problem is not None:
        more = len(report.problems) - 1
        raise CommandFailed(report.problem + (f" --json lists {more} more." if more else ""))


def read_configured_keys(*, of_export: bool = False) -> list[str]:
    """Return the configured private key's public key, and the earlier ones. Raises CommandFailed without a key.

    The settings' own error advises generating a key, which would not help: a new key has signed nothing yet.
    """
    try:
        settings = load_settings()
    except SettingsError:
        if of_export:  # verifying an export needs no settings
            raise CommandFailed(_NO_KEY) from None
        raise
    if settings.ledger.signing_key is None:
        raise CommandFailed(_NO_KEY)
    return [Signer(settings.ledger_key()).public_key, *settings.ledger.public_keys]


@contextmanager
def _open_records(export: Path | None) -> Iterator[Iterable[Record]]:
    if export is None:
        with open_snapshot(load_settings()) as connection:
            yield read_records(connection)
        return
    try:
        yield read_export(export)
    except ImportError:
        raise CommandFailed(NO_PARQUET) from None


def _format_report(report: LedgerReport) -> str:
    if not report.writers and not report.checkpoints:
        return (
            "The ledger is empty: nothing was ever written, or everything was deleted. Use --anchor to find out which."
        )
    parts = [f"{format_entries(report.entries)} of {format_count(report.writers, 'writer')}, unchanged."]
    if report.erased:
        parts.append(f"{format_count(report.erased, 'was', 'were')} erased.")
    if report.withheld:
        filters = _format_filters(report.header)
        withheld = format_count(report.withheld, "is", "are")
        parts.append(f"{withheld} withheld: this export proves only what it contains{filters}.")
    if report.anchor.number and not report.header.has_window:
        parts.append(f"Keep this anchor outside the database: {report.anchor.number}:{report.anchor.hash}")
    return " ".join(parts)


def _format_filters(header: StreamHeader) -> str:
    filters = [f"{name} {value}" for name, value in asdict(header).items() if value and name != "format"]
    return f" ({', '.join(filters)})" if filters else ""
