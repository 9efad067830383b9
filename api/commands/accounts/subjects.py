"""`atalaya users bar`, `unbar` and `barred`: users of external issuers who are barred from this gateway."""

from __future__ import annotations

from typing import Annotated

import typer

from api.commands.database import CommandEvent, recording, run_with_engine
from api.commands.output import JsonFlag, print_json, print_table
from api.settings import load_settings
from auth.tokens.barred_subjects import BarredSubject, BarredSubjects
from auth.tokens.issuer_rules import format_subject
from monitoring.chains.timestamps import format_timestamp

Issuer = Annotated[str, typer.Argument(help="The issuer as in AUTH__ISSUERS.")]
Subject = Annotated[str, typer.Argument(help="The claim `sub` of the user's tokens.")]


def bar(issuer: Issuer, subject: Subject, as_json: JsonFlag = False) -> None:
    """Bar a user of an external issuer; running gateways reject the user's tokens within a second."""
    settings = load_settings()
    issuers = [entry.issuer for entry in settings.auth.issuers]
    if issuer not in issuers:
        raise typer.BadParameter(f"AUTH__ISSUERS does not list {issuer}. It lists: {', '.join(issuers) or 'none'}.")
    target = _name_subject(issuer, subject)
    record = recording(lambda _: CommandEvent("subject", "barred", target))
    barred = run_with_engine(settings, lambda engine: BarredSubjects(engine).bar(issuer, subject, record=record))
    print_json(_describe_barred(barred)) if as_json else typer.echo(f"{subject} of {issuer}: barred.")


def unbar(issuer: Issuer, subject: Subject) -> None:
    """Let a barred user of an external issuer in again."""
    target = _name_subject(issuer, subject)
    record = recording(lambda _: CommandEvent("subject", "unbarred", target))
    run_with_engine(load_settings(), lambda engine: BarredSubjects(engine).unbar(issuer, subject, record=record))
    typer.echo(f"{subject} of {issuer}: no longer barred.")


def list_barred(as_json: JsonFlag = False) -> None:
    """List the barred users of external issuers."""
    barred = [_describe_barred(each) for each in run_with_engine(load_settings(), lambda e: BarredSubjects(e).list())]
    if as_json:
        print_json(barred)
        return
    fields = ("subject", "issuer", "barred_at")
    print_table(fields, [[each[field] for field in fields] for each in barred])


def _name_subject(issuer: str, subject: str) -> str:
    """Return the target of the audit record. Raises BadParameter for a subject that no accepted token can have."""
    try:
        return f"subject:{format_subject(issuer, subject)}"
    except ValueError:
        raise typer.BadParameter(
            "SUBJECT must be the claim `sub` of a token: printable text of limited length."
        ) from None


def _describe_barred(barred: BarredSubject) -> dict[str, str]:
    return {"issuer": barred.issuer, "subject": barred.subject, "barred_at": format_timestamp(barred.barred_at)}
