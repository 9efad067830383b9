"""`atalaya drift`: whether live traffic differs from the images that the model was measured on."""

from __future__ import annotations

from collections.abc import Mapping

import typer
from sqlalchemy.ext.asyncio import AsyncEngine

from api.commands.database import open_migrated_engine, recorded_run, run_with_engine
from api.commands.models.quality.live_sums import update_sums
from api.commands.output import JsonFlag, format_count, print_json, print_table, print_wrapped
from api.schemas.drift import ComparisonResponse, DriftResponse, FindingResponse, ModelDriftResponse
from api.services.measuring.drift.references import Detectors
from api.services.measuring.drift.report import read_report
from api.settings import load_settings
from auth.accounts.store import UserStore
from monitoring.tasks.runs import Task

_NOTE = (
    "Recent: the mean of about the last 100 predictions. A caller whose images match the reference has at most a 1 % "
    "chance of being reported within 5,000 predictions."
)


def drift(as_json: JsonFlag = False) -> None:
    """Show which callers' images or predictions differ from the reference of the model; exit status 1 if any do.

    The predictions are those of all gateways that use the same database.
    """
    settings = load_settings()
    detectors = Detectors(settings)
    with recorded_run(Task.DRIFT), open_migrated_engine(settings) as engine:
        update_sums(settings, engine, detectors)
        response = DriftResponse.of(read_report(engine, detectors))
    if as_json:
        print_json(response.model_dump(mode="json"))
    else:
        names = run_with_engine(settings, _read_names) if response.findings else {}
        _print(response, names)
    if response.drifting:
        raise typer.Exit(1)


async def _read_names(engine: AsyncEngine) -> Mapping[str, str]:
    """Return the names of all users by their ids."""
    return {user.id: user.name for user in await UserStore(engine).list()}


def _print(response: DriftResponse, names: Mapping[str, str]) -> None:
    if not response.models:
        typer.echo("No predictions of a model with a reference in the last seven days.")
    for model in response.models:
        _print_model(model)
    if response.findings:
        print_table(
            ("who", "what", "how", "since (UTC)", "reference", "recent"),
            [_format_finding(each, names) for each in response.findings],
        )
    elif response.models:
        typer.echo("No drift.")
    if response.models:
        print_wrapped(_NOTE)


def _print_model(model: ModelDriftResponse) -> None:
    counts = format_count(model.predictions, "prediction"), format_count(model.callers, "caller")
    typer.echo(f"{model.model}: {', '.join(counts)} watched")
    print_table(("measure", "reference", "recent"), [_format_comparison(each) for each in model.measures])


def _format_comparison(each: ComparisonResponse) -> tuple[str, str, str]:
    return each.name, _format_number(each.reference), _format_number(each.recent)


def _format_finding(each: FindingResponse, names: Mapping[str, str]) -> tuple[str, ...]:
    is_class = each.metric == "class_mix"
    return (
        "all callers" if each.caller is None else names.get(each.caller, each.caller),
        each.metric,
        f"more {each.change}" if is_class else each.change.replace("_", " "),
        f"{each.since:%Y-%m-%d %H:%M}",
        _format_number(each.reference),
        _format_number(each.recent),
    )


def _format_number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
