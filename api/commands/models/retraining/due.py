"""Why a retraining is due."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from api.commands.database import open_migrated_engine, run_with_engine
from api.services.measuring.drift.references import Detectors
from api.services.measuring.drift.report import read_report
from api.services.registry import open_registry
from api.settings import Settings
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


def check_age(settings: Settings, now: datetime) -> str | None:
    """Whether the version that MODEL__URL names by an alias was added too long ago; others have no known age."""
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
    return f"{reference.model} {version.version} is {days} days old, and CALENDAR__RETRAINING_DAYS is {limit}."


def check_accuracy(settings: Settings, _now: datetime) -> str | None:
    """Whether the served model has a significant loss on some data set, by the last evaluation of that."""
    loss = run_with_engine(settings, lambda engine: EvaluationStore(engine).find_loss())
    if loss is None:
        return None
    day = datetime.fromtimestamp(loss.at, UTC).date()
    return f"{loss.full_name} became worse: its accuracy in the evaluation of {day} was {loss.accuracy:.4f}."


def check_drift(settings: Settings, _now: datetime) -> str | None:
    """Whether all callers together drift, as far as `atalaya drift` or a gateway has read the predictions.

    A single caller with other images is no reason for another model.
    """
    with open_migrated_engine(settings) as engine:
        findings = [each for each in read_report(engine, Detectors(settings)).findings if each.caller == ALL]
    if not findings:
        return None
    metrics = ", ".join(sorted({each.metric for each in findings}))
    return f"The predictions for all callers drift ({metrics}): see `atalaya drift`."


_CHECKS: tuple[DueCheck, ...] = (check_age, check_accuracy, check_drift)
