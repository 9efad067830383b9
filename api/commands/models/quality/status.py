"""`atalaya models status`: show the candidate beside the version in production, and the evidence on it so far."""

from __future__ import annotations

from typing import Annotated

import typer
from msgspec import to_builtins

from api.commands.database import run_with_engine
from api.commands.output import JsonFlag, print_json, print_table, print_wrapped
from api.services.canary.status import TrialStatus, read_status
from api.services.registry import open_registry
from api.settings import Settings, load_settings
from api.settings.quality.canary import VerdictPolicy
from model.canary.assignment import Mode
from model.canary.evidence import MEANS
from model.canary.judge import Finding
from model.canary.report import EvidenceRow
from monitoring.canary.store import TrialStore

_FINDINGS = {
    Finding.TOO_FEW: "too few",
    Finding.OPEN: "open",
    Finding.ACCEPTABLE: "good",
    Finding.UNACCEPTABLE: "bad",
}


def status(
    name: Annotated[str, typer.Argument(help="The name of the model.")],
    as_json: JsonFlag = False,
) -> None:
    """Show the candidate for a model, the evidence so far, and the verdict or what is still missing for one."""
    settings = load_settings()
    state = open_registry(settings).read(name)
    current = run_with_engine(settings, lambda engine: read_status(settings, TrialStore(engine), name, state))
    if as_json:
        print_json({**to_builtins(current), "settings": settings.canary.model_dump(mode="json")})
        return
    typer.echo(f"{name} {current.production} is in production.")
    if current.contest is None or current.trial is None:
        typer.echo(f"There is no candidate: no other version has the alias {settings.canary.alias!r}.")
        return
    typer.echo(f"{current.contest.candidate} is the candidate{_describe_trial(current.trial, settings)}")
    if current.trial.started_at is not None:
        _print_evidence(current.trial)


def _describe_trial(trial: TrialStatus, settings: Settings) -> str:
    if trial.judged_at is not None:
        return f". Verdict at {_format_time(trial.judged_at)}: {trial.verdict.replace('_', ' ')}."
    share = f"{100 * settings.canary.share:g} %"
    mode = {
        Mode.OFF: "is not tried, because CANARY__MODE is off",
        Mode.SHADOW: f"gets copies of {share} of the requests",
        Mode.CANARY: f"responds to {share} of the callers",
    }[settings.canary.mode]
    if trial.started_at is None:
        return f". It {mode}. No gateway has tried it yet."
    acts = "acts on the verdict" if settings.canary.verdict is VerdictPolicy.ACT else "only records the verdict"
    return f" since {_format_time(trial.started_at)}.\nIt {mode}. The gateway {acts}."


def _print_evidence(trial: TrialStatus) -> None:
    print_table(("metric", "number", "worse", "better", "true share", "limit", ""), map(_format_row, trial.rows))
    for reason in trial.reasons:
        print_wrapped(f"- {reason}", indent="  ")


def _format_row(row: EvidenceRow) -> tuple[str, ...]:
    """Return a metric, how often the candidate was worse and better, and the bounds of the true share."""
    has_better = MEANS[row.metric].lowest < 0
    return (
        row.metric.replace("_", " "),
        str(row.comparisons),
        str(row.worse),
        str(row.better) if has_better else "",
        f"{100 * row.lower:.1f} to {100 * row.upper:.1f} %" if row.comparisons else "",
        f"{100 * row.margin:g} %",
        _FINDINGS[row.finding],
    )


def _format_time(moment: str) -> str:
    return f"{moment[:10]} {moment[11:19]}"
