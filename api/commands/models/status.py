"""`atalaya models status`: the candidate beside the version in production, and what is known of it."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Annotated

import typer

from api.commands.database import run_with_engine
from api.commands.output import JsonFlag, print_json, print_table
from api.services.canary.status import TrialStatus, read_status
from api.settings import Settings, load_settings
from model.canary.assignment import Mode
from model.canary.evidence import MEANS
from model.canary.report import EvidenceRow


def status(
    name: Annotated[str, typer.Argument(help="The name of the model.")],
    as_json: JsonFlag = False,
) -> None:
    """Show the candidate for a model, the evidence on it so far, and the verdict or what is missing for one."""
    settings = load_settings()
    found = run_with_engine(settings, partial(read_status, settings, model=name))
    if as_json:
        print_json({**asdict(found), "settings": settings.canary.model_dump(mode="json")})
        return
    typer.echo(f"{name} {found.production} is in production.")
    if found.contest is None or found.trial is None:
        typer.echo(f"There is no candidate: no other version has the alias {settings.canary.alias!r}.")
        return
    typer.echo(f"{found.contest.candidate} is the candidate: {_describe_mode(settings)}.")
    _print_trial(found.trial, settings)


def _describe_mode(settings: Settings) -> str:
    share = f"{100 * settings.canary.share:g} %"
    return {
        Mode.OFF: "it is not tried, because CANARY__MODE is off",
        Mode.SHADOW: f"it gets copies of {share} of the requests",
        Mode.CANARY: f"it responds to {share} of the callers",
    }[settings.canary.mode]


def _print_trial(trial: TrialStatus, settings: Settings) -> None:
    if trial.started_at is None:
        typer.echo("No gateway has tried it yet.")
        return
    print_table(
        ("metric", "compared", "worse", "better", "share", "in truth", "limit", ""), map(_format_row, trial.rows)
    )
    policy = f", {settings.canary.verdict}" if trial.judged_at is None else f", {_format_time(trial.judged_at)}"
    typer.echo(
        f"Verdict: {trial.verdict.replace('_', ' ')}{policy}. The trial began at {_format_time(trial.started_at)}."
    )
    for reason in trial.reasons:
        typer.echo(f"- {reason}")


def _format_row(row: EvidenceRow) -> tuple[str, ...]:
    """A metric, how often the candidate was worse and better, and between which bounds the true share lies."""
    has_better = MEANS[row.metric].lowest < 0
    return (
        row.metric.replace("_", " "),
        str(row.comparisons),
        str(row.worse),
        str(row.better) if has_better else "",
        f"{100 * row.share:.1f} %" if row.comparisons else "",
        f"{100 * row.lower:.1f} to {100 * row.upper:.1f} %" if row.comparisons else "",
        f"{100 * row.margin:g} %",
        row.finding.replace("_", " "),
    )


def _format_time(moment: str) -> str:
    return f"{moment[:10]} {moment[11:19]}"
