"""`atalaya models history`: what an alias pointed to at any time, and who decided it, from the verified ledger."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from api.commands.ledger.database import open_snapshot
from api.commands.ledger.verify import PublicKeys, read_configured_keys
from api.commands.models.aliases import NameArgument
from api.commands.options.times import parse_time
from api.commands.output import JsonFlag, format_count, format_time, print_json, print_table
from api.errors import CommandFailed
from api.services.aliases.moves import read_recorded_move
from api.services.registry import open_registry
from api.settings import Settings, load_settings
from model.registry.errors import UnknownModel
from model.registry.history import AliasHistory, Period
from model.registry.moves import AliasMove
from model.registry.reference import PRODUCTION
from monitoring.chains.signing import Verifier
from monitoring.chains.timestamps import format_timestamp
from monitoring.ledger.entries import CHECKPOINTS, NO_REQUEST, Stump, name_model_subject
from monitoring.ledger.records import EntryRecord, Record, read_records
from monitoring.ledger.verification.stream import verify
from monitoring.redaction import to_printable

_PRUNED = "Old entries of the ledger were pruned, so earlier moves may be missing."


class _MoveReader:
    """Collects a model's moves from the records of a ledger while they are verified."""

    def __init__(self, model: str) -> None:
        self._subject = name_model_subject(model)
        self._moves: list[tuple[str, AliasMove]] = []
        self.pruned = False

    @property
    def moves(self) -> list[AliasMove]:
        """The moves in the order in which they were recorded, over all writers."""
        return [move for _, move in sorted(self._moves, key=lambda pair: pair[0])]

    def pass_on(self, records: Iterable[Record]) -> Iterator[Record]:
        for record in records:
            if isinstance(record, EntryRecord):
                self._collect(record)
            elif isinstance(record, Stump) and record.writer != CHECKPOINTS:
                self.pruned = True
            yield record

    def _collect(self, record: EntryRecord) -> None:
        payload = record.payload
        if payload is not None and payload.status == NO_REQUEST and payload.principal == self._subject:
            move = read_recorded_move(payload)
            if move is not None:
                self._moves.append((str(record.entry.id), move))


def history(
    name: NameArgument,
    alias: Annotated[str, typer.Option(help="The alias to report on.")] = PRODUCTION,
    at: Annotated[
        datetime | None,
        typer.Option(
            parser=parse_time, metavar="TIME", help="Only what it pointed to at this time, such as 2026-11-03T10:00Z."
        ),
    ] = None,
    public_key: PublicKeys = None,
    as_json: JsonFlag = False,
) -> None:
    """Show which version an alias pointed to at a given time, who decided it and why.

    The history is reconstructed from the ledger, which is verified as a whole: if anything in it was changed or is
    missing, the command says what, and fails.
    """
    settings = load_settings()
    reader = _MoveReader(name)
    verifier = Verifier(public_key or read_configured_keys())
    with open_snapshot(settings) as connection:
        report = verify(reader.pass_on(read_records(connection)), verifier)
    timeline = AliasHistory(alias, reader.moves)
    unrecorded = _compare_with_registry(settings, name, timeline)
    notes = [*timeline.gaps, *unrecorded, *([_PRUNED] if reader.pruned else [])]
    if as_json:
        document = {"model": name, "alias": alias, **_describe(timeline, at), "notes": notes}
        print_json({**document, "verified": not report.problems, "problems": report.problems})
    else:
        _print(name, timeline, at)
        for note in notes:
            typer.echo(note, err=True)
    if report.problem is not None:
        raise CommandFailed(f"The ledger was changed, so this history may be wrong. {report.problem}")


def _compare_with_registry(settings: Settings, name: str, timeline: AliasHistory) -> list[str]:
    """Describe how the registry differs from the ledger; without a registry there is nothing to compare."""
    if settings.model.registry is None:
        return []
    try:
        state = open_registry(settings).read(name)
    except UnknownModel:
        if not timeline.periods:
            raise
        return [f"The registry no longer has the model {name}."]
    if state.unrecorded:
        count = len(state.unrecorded)
        moves = format_count(count, f"move of {name} is", f"moves of {name} are")
        return [
            f"{moves} not recorded yet, because recording was interrupted. {'It' if count == 1 else 'They'} will be "
            "recorded when an alias of the model is moved again, or when a gateway starts."
        ]
    timeline.check_present(state.aliases.get(timeline.alias))
    return []


def _describe(timeline: AliasHistory, at: datetime | None) -> dict[str, Any]:
    if at is None:
        return {"periods": [_describe_period(period) for period in timeline.periods]}
    period = timeline.find(at)
    return {"at": format_timestamp(at), "period": None if period is None else _describe_period(period)}


def _describe_period(period: Period) -> dict[str, Any]:
    move, since = period.move, period.since
    if move is None or since is None:
        return {"version": period.version, **dict.fromkeys(("since", "who", "why", "move"))}
    decision = {"who": move.who, "why": move.why, "move": move.id}
    return {"version": period.version, "since": format_timestamp(since), **decision}


def _print(name: str, timeline: AliasHistory, at: datetime | None) -> None:
    if at is not None:
        typer.echo(to_printable(_describe_moment(name, timeline, at)))
        return
    rows, before = [], ""
    for period in timeline.periods:
        version = period.version or "none"
        move = period.move
        row = (format_time(period.since), move.who, move.why) if move is not None else ("unknown", "", "")
        rows.append((row[0], before, version, *row[1:]))
        before = version
    print_table(("since (UTC)", "from", "to", "who", "why"), rows)


def _describe_moment(name: str, timeline: AliasHistory, at: datetime) -> str:
    """Return one sentence about what the alias pointed to at that time."""
    then, period = f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC", timeline.find(at)
    if period is None:
        return f"{timeline.alias} of {name} at {then}: no record."
    move, version = period.move, period.version or "no version"
    if move is None:
        return f"{timeline.alias} of {name} at {then}: {version}, but the ledger does not record since when."
    return (
        f"{timeline.alias} of {name} at {then}: {version}, since {format_time(period.since)} UTC, decided by "
        f"{move.who}: {move.why}"
    )
