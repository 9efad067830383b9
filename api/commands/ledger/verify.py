"""`atalaya ledger verify`: whether the ledger, or an export of it, is as it was written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.commands.ledger.database import ledger_view
from api.commands.output import JsonFlag, print_json
from api.errors import CommandFailed
from api.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from monitoring.ledger.records import Header, Record
    from monitoring.ledger.verify import Anchor, Finding


def verify(
    export: Annotated[Path | None, typer.Argument(help="An export, instead of the database.")] = None,
    public_key: Annotated[
        list[str] | None,
        typer.Option(help="What `atalaya ledger key` prints; several where keys have changed. Yours if absent."),
    ] = None,
    anchor: Annotated[
        str | None, typer.Option(help="NUMBER:HASH of an earlier check, kept elsewhere: it must still be there.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Check every entry, every statement and the order of all; say which is wrong."""
    from monitoring.chains.signing import Signer, Verifier
    from monitoring.ledger import verify as check

    noted = _anchor(anchor) if anchor else None
    verifier = Verifier(public_key or [Signer(load_settings().ledger_key()).public_key])
    with _records(export) as records:
        finding = check.verify(records, verifier, noted)
    if as_json:
        print_json({"ok": not finding.problems, **asdict(finding)})
    if finding.problems:
        more = len(finding.problems) - 1
        raise CommandFailed(finding.problems[0] + (f" --json tells {more} more." if more else ""))
    if not as_json:
        typer.echo(_told(finding))


@contextmanager
def _records(export: Path | None) -> Iterator[Iterable[Record]]:
    from monitoring.ledger.exports import read_export
    from monitoring.ledger.records import records_in

    if export is None:
        with ledger_view(load_settings()) as connection:
            yield records_in(connection)
        return
    try:
        yield read_export(export)
    except ImportError:
        raise CommandFailed(NO_PARQUET) from None


NO_PARQUET = "Parquet needs pyarrow: pip install --require-hashes -r requirements/parquet.txt."


def _told(finding: Finding) -> str:
    if not finding.writers and not finding.checkpoints:
        return "There is nothing in it: it was never written, or was emptied. With --anchor the difference shows."
    parts = [f"{finding.entries} entries of {finding.writers} writers, unchanged."]
    if finding.erased:
        parts.append(f"{finding.erased} were erased.")
    if finding.withheld:
        parts.append(
            f"{finding.withheld} are withheld: this export proves what it holds, no more{_asked(finding.header)}."
        )
    if finding.anchor.number and not finding.header.cut:
        parts.append(f"Keep this elsewhere: {finding.anchor.number}:{finding.anchor.hash}")
    return " ".join(parts)


def _asked(header: Header) -> str:
    words = [f"{name} {value}" for name, value in asdict(header).items() if value and name != "format"]
    return f" ({', '.join(words)})" if words else ""


def _anchor(text: str) -> Anchor:
    """Raises BadParameter."""
    from monitoring.ledger.verify import Anchor

    number, _, digest = text.partition(":")
    if not re.fullmatch(r"[0-9]{1,18}", number) or not digest:
        raise typer.BadParameter(
            "--anchor: give it as `atalaya ledger verify` printed it, a number, a colon and a hash."
        )
    return Anchor(int(number), digest)
