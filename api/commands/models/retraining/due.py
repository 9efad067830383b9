"""Checks whether a retraining is due, and why."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from api.commands.database import open_migrated_engine, run_with_engine
from api.commands.output import format_count
from api.services.measuring.drift.references import Detectors
from api.services.measuring.drift.report import read_report
from api.services.registry import find_model_url, open_registry
from api.settings import Settings
from model.canary.contest import find_contest
from model.registry.artefact import MANIFEST, read_manifest
from model.registry.errors import UnknownAlias, UnknownModel
from monitoring.quality.drift.store import ALL
from monitoring.quality.evaluation_store import EvaluationStore

# Returns a reason as a sentence, or None.
DueCheck = Callable[[Settings, datetime], str | None]


def find_due_reasons(settings: Settings, now: datetime | None = None) -> list[str]:
    """Return a sentence for each reason why a new version should be trained.

    Raises RegistryError, DatabaseUnavailable, DatabaseMissing, LedgerUnavailable.
    """
    moment = now or datetime.now(UTC)
    return [reason for check in _CHECKS if (reason := check(settings, moment)) is not None]


def find_waiting_candidate(settings: Settings) -> str | None:
    """Return the name and version of the candidate for the model that MODEL__URL names, or None without one.

    Raises RegistryError.
    """
    reference = settings.model.reference
    if reference is None:
        return None
    try:
        state = open_registry(settings).read(reference.model)
        contest = find_contest(reference.model, state, production=reference.alias, candidate=settings.canary.alias)
    except (UnknownModel, UnknownAlias):
        return None
    return None if contest is None else f"{contest.model} {contest.candidate}"


def check_age(settings: Settings, now: datetime) -> str | None:
    """Return a reason if the version that MODEL__URL names by an alias was added too long ago.

    The age of other models is unknown.
    """
    reference, limit = settings.model.reference, settings.calendar.retraining_days
    if reference is None or limit == 0:
        return None
    try:
        version = open_registry(settings).read(reference.model).find(f"@{reference.alias}")
    except (UnknownModel, UnknownAlias):
        return None
    days = (now - datetime.fromisoformat(version.added_at)).days
    if days < limit:
        return None
    age = format_count(days, "day")
    return f"{reference.model} {version.version} is {age} old, and CALENDAR__RETRAINING_DAYS is {limit}."


def check_accuracy(settings: Settings, _now: datetime) -> str | None:
    """Return a reason if the last evaluation on some data set found the served model significantly worse."""
    loss = run_with_engine(settings, lambda engine: EvaluationStore(engine).find_loss())
    if loss is None:
        return None
    day = datetime.fromtimestamp(loss.at, UTC).date()
    return f"{loss.full_name} became worse: its accuracy in the evaluation of {day} was {loss.accuracy:.4f}."


def check_drift(settings: Settings, _now: datetime) -> str | None:
    """Return a reason if the predictions for all callers together drift.

    Predictions that neither `atalaya drift` nor a gateway has processed yet are not considered. Drift of a single
    caller, and findings about an earlier model, are not reasons to retrain.
    """
    served = _find_served(settings)
    with open_migrated_engine(settings) as engine:
        report = read_report(engine, Detectors(settings))
    findings = [each for each in report.findings if (each.model, each.caller) == (served, ALL)]
    if not findings:
        return None
    metrics = ", ".join(sorted({each.metric for each in findings}))
    return f"The predictions for all callers drift ({metrics}): see `atalaya drift`."


def _find_served(settings: Settings) -> str | None:
    """Return the full name of the model that MODEL__URL names; None if it is not in a folder on this machine."""
    scheme, _, folder = find_model_url(settings).partition("://")
    is_here = scheme.partition("+")[0] == "onnx" and (Path(folder) / MANIFEST).exists()
    return read_manifest(Path(folder)).full_name if is_here else None


_CHECKS: tuple[DueCheck, ...] = (check_age, check_accuracy, check_drift)
