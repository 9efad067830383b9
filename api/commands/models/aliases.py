"""`atalaya models promote`, `rollback` and `tag`: move a model's aliases, and set the tags of its versions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Annotated

import typer

from api.commands.database import CommandEvent, command_actor, migrate_database, write_event
from api.commands.output import JsonFlag, print_json
from api.services.aliases.moves import describe_move
from api.services.recording import open_event_writer
from api.services.registry import open_registry
from api.settings import Settings, load_settings
from model.errors import ModelError
from model.registry.errors import MoveUnrecorded
from model.registry.moves import MAX_REASON_LENGTH, AliasMove, Change
from model.registry.promotion import AliasMover
from model.registry.reference import PRODUCTION
from monitoring.errors import MonitoringError
from monitoring.redaction import to_printable
from storage.errors import StorageError

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="A model of the registry.")]
AliasOption = Annotated[str, typer.Option(help="The alias to move.")]


def _check_reason(text: str) -> str:
    if not text.strip() or len(text) > MAX_REASON_LENGTH:
        raise typer.BadParameter(f"Give a reason of 1 to {MAX_REASON_LENGTH} characters.")
    return text


WhyOption = Annotated[
    str, typer.Option(callback=_check_reason, metavar="TEXT", help="The reason, which the ledger records.")
]


ExpectOption = Annotated[
    str | None, typer.Option(metavar="VERSION", help="Fail unless the alias currently points to this version.")
]


def promote(
    name: NameArgument,
    version: Annotated[str, typer.Argument(metavar="VERSION", help="A version, or @ALIAS for the one it points to.")],
    why: WhyOption,
    alias: AliasOption = PRODUCTION,
    expect: ExpectOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Move an alias to a version; every gateway that follows the alias serves that version within two seconds.

    The version is verified first. `previous` then points to the version before it (for another alias it
    is ALIAS-previous). The decision is recorded in the ledger and in the audit log.
    """
    with open_mover(load_settings()) as mover, auditing_move("promoted", name, alias, why) as audit:
        changes = mover.promote(
            name, version, who=command_actor(), why=why, alias=alias, expected=expect, before_move=audit
        )
    _print(name, changes, as_json)


def roll_back(
    name: NameArgument,
    why: WhyOption,
    alias: AliasOption = PRODUCTION,
    expect: ExpectOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Move an alias back to the version before the last promotion; `previous` then points to the current version."""
    with open_mover(load_settings()) as mover, auditing_move("rolled_back", name, alias, why) as audit:
        changes = mover.roll_back(name, who=command_actor(), why=why, alias=alias, expected=expect, before_move=audit)
    _print(name, changes, as_json)


def tag(
    name: NameArgument,
    version: Annotated[str, typer.Argument(metavar="VERSION", help="A version, or @ALIAS for the one it points to.")],
    tags: Annotated[list[str], typer.Argument(metavar="KEY=VALUE…", help="KEY= removes the tag.")],
    as_json: JsonFlag = False,
) -> None:
    """Set or remove tags of a version. Tags are notes: they do not affect serving."""
    settings = load_settings()
    state = open_registry(settings).tag(name, version, dict(map(_parse_tag, tags)))
    tagged = state.find(version)
    event = CommandEvent("model", "tagged", f"model:{name}", {"version": tagged.version, "tags": " ".join(tags)})
    write_event(settings, event)
    if as_json:
        print_json({"model": name, "version": tagged.version, "tags": dict(tagged.tags)})
    else:
        described = ", ".join(f"{key}={value}" for key, value in tagged.tags.items())
        typer.echo(to_printable(f"{name} {tagged.version}: {described or 'no tags'}"))


@contextmanager
def open_mover(settings: Settings) -> Iterator[AliasMover]:
    """Yield a mover that records each move of an alias in the ledger, unless LEDGER__ENABLED is false.

    Raises SettingsError, DatabaseUnavailable, DatabaseMissing, BadLedgerKey.
    """
    registry = open_registry(settings)
    migrate_database(settings)
    with open_event_writer(settings) as writer:

        def record(model: str, move: AliasMove) -> None:
            if settings.ledger.enabled:
                writer.record(describe_move(model, move))

        yield AliasMover(registry, record, settings.artefact_key(), mirrored=settings.model.is_mirrored)


@contextmanager
def auditing_move(outcome: str, name: str, alias: str, why: str) -> Iterator[Callable[[Change], None]]:
    """Yield a function that audits a move just before it; if it raises AuditUnavailable, the alias must not move.

    If the block then fails to move the alias or to record the move in the ledger, audit that, too.
    """
    audited = False

    def audit(change: Change) -> None:
        nonlocal audited
        _audit(outcome, name, {"alias": alias, "from": change.before or "", "to": change.after or "", "why": why})
        audited = True

    try:
        yield audit
    except (ModelError, MonitoringError) as error:
        if audited:
            failure = "unrecorded" if isinstance(error, MoveUnrecorded) else "refused"
            with suppress(MonitoringError, StorageError):  # the audit log may be unavailable for the same reason
                _audit(failure, name, {"alias": alias, "why": why, "code": error.code})
        raise


def _audit(outcome: str, name: str, detail: Mapping[str, str]) -> None:
    """Raises AuditUnavailable."""
    event = CommandEvent("model", outcome, f"model:{name}", detail)
    write_event(load_settings(), event)


def _print(name: str, changes: Mapping[str, Change], as_json: bool) -> None:
    if as_json:
        aliases = {each: {"from": change.before, "to": change.after} for each, change in changes.items()}
        print_json({"model": name, "aliases": aliases})
        return
    for each, change in changes.items():
        before = f" (before: {change.before})" if change.before else ""
        typer.echo(f"{each} of {name} now points to {change.after}{before}.")


def _parse_tag(text: str) -> tuple[str, str | None]:
    key, separator, value = text.partition("=")
    if not separator:
        raise typer.BadParameter(f"{text!r} is not KEY=VALUE.")
    return key, value or None
