"""Recommendations: rules over the numbers of a report. Each names the numbers that triggered it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

from msgspec.structs import replace

from api.commands.reporting.document import CallerTraffic, Recommendation, Report, ServedVersion
from api.commands.reporting.ledger_facts import INCIDENT_SHARE
from monitoring.chains.timestamps import format_timestamp
from monitoring.quality.drift.store import ALL, OTHERS, DriftFinding
from monitoring.tasks.runs import Task

MIN_LABELS = 100
"""With fewer, the interval of an accuracy near 95 % is more than 8 points wide."""

MAX_SERVER_ERRORS = 0.001
MAX_NOT_AERIAL, MIN_CALLER_PREDICTIONS = 0.2, 20
MIN_SLEEP_SAVING = 0.1
MIN_MEASURED_HOURS = 7 * 24
"""With less than a week, neither the busiest hour nor the idle ones are typical."""

MIN_BRIGHTNESS_CHANGE = 20.0
MAX_REFUSED_LOGINS = 100
_LATENCY_PERCENTILE = 95
_LATENCY_FACTOR = 1.5
_MAX_DRIFTING = 5
_MIN_BACKUP_AGE = timedelta(days=7)

Rule = Callable[[Report], Iterator[Recommendation]]


def with_recommendations(report: Report) -> Report:
    """Return the report with the recommendations from its numbers, the most urgent first."""
    return replace(report, recommendations=[each for rule in _RULES for each in rule(report)])


def _find_incidents(report: Report) -> Iterator[Recommendation]:
    days = [each for each in report.incidents if each.kind == "server_errors"]
    if days:
        worst = max(days, key=lambda day: day.count / day.requests)
        yield Recommendation(
            "incident_days",
            {
                "days": len(days),
                "day": worst.day,
                "percent": _percent(worst.count, worst.requests),
                "limit": round(100 * INCIDENT_SHARE),
            },
        )
    elif report.requests and report.server_errors > MAX_SERVER_ERRORS * report.requests:
        yield Recommendation("server_errors", {"percent": _percent(report.server_errors, report.requests)})


def _find_accuracy(report: Report) -> Iterator[Recommendation]:
    """Compare the labelled accuracy of a version with that in the previous quarter, and with its own confidence."""
    earlier = {version.full_name: version for version in report.before}
    for version in report.versions:
        if version.accuracy is None:
            continue
        now, before = version.accuracy, earlier.get(version.full_name)
        if before is not None and before.accuracy is not None and now.upper < before.accuracy.lower:
            yield Recommendation(
                "accuracy_fell",
                {"version": version.full_name, "now": _points(now.value), "before": _points(before.accuracy.value)},
            )
        elif version.estimate is not None and now.upper < version.estimate.lower:
            yield Recommendation(
                "overconfident",
                {"version": version.full_name, "now": _points(now.value), "estimate": _points(version.estimate.value)},
            )


def _find_undecided_versions(report: Report) -> Iterator[Recommendation]:
    """Find versions that began to predict without a recorded decision."""
    before = {version.full_name for version in report.before}
    decided = report.decided_before | {change.version for change in report.aliases}
    for version in report.versions:
        if before and version.full_name not in before | decided:
            yield Recommendation("undecided_version", {"version": version.full_name, "day": version.first_at[:10]})


def _find_validation_loss(report: Report) -> Iterator[Recommendation]:
    last = report.validations[-1] if report.validations else None
    if last is not None and last.is_loss and last.comparison is not None:
        lost, gained, p_value = last.comparison.lost, last.comparison.gained, f"{last.comparison.p_value:.2g}"
        yield Recommendation(
            "validation_loss", {"version": last.full_name, "lost": lost, "gained": gained, "p_value": p_value}
        )


def _find_missing_labels(report: Report) -> Iterator[Recommendation]:
    version = _find_main_version(report.versions)
    if version is not None and version.labelled < MIN_LABELS:
        yield Recommendation(
            "few_labels", {"version": version.full_name, "labelled": version.labelled, "wanted": MIN_LABELS}
        )


def _find_photographs(report: Report) -> Iterator[Recommendation]:
    for caller in report.callers:
        if _sends_photographs(caller):
            percent = _percent(caller.not_aerial, caller.predictions)
            yield Recommendation("not_aerial", {"caller": caller.name, "percent": percent, "images": caller.not_aerial})


def _sends_photographs(caller: CallerTraffic) -> bool:
    return caller.predictions >= MIN_CALLER_PREDICTIONS and caller.not_aerial > MAX_NOT_AERIAL * caller.predictions


def _find_drift(report: Report) -> Iterator[Recommendation]:
    """Report up to _MAX_DRIFTING individual callers whose traffic still drifts at the end of the quarter.

    Callers who send photographs are left out: they get a recommendation of their own, and labels would not help.
    """
    excluded = {ALL, OTHERS, *(caller.name for caller in report.callers if _sends_photographs(caller))}
    end = format_timestamp(report.quarter.end)
    lasting = [each for each in report.drift if each.ended_at is None or each.ended_at >= end]
    first = dict[str, DriftFinding]()
    for each in lasting:
        name = report.names.get(each.caller, each.caller)
        if name not in excluded:
            first.setdefault(name, each)
    for name, finding in list(first.items())[:_MAX_DRIFTING]:
        metrics = tuple(sorted({each.metric for each in lasting if each.caller == finding.caller}))
        yield Recommendation("drift", {"caller": name, "day": finding.since[:10], "metrics": metrics})


def _find_brightness(report: Report) -> Iterator[Recommendation]:
    measured = [(month.name, month.brightness) for month in report.months if month.brightness is not None]
    if measured:
        darkest, brightest = min(measured, key=lambda pair: pair[1]), max(measured, key=lambda pair: pair[1])
        if brightest[1] - darkest[1] > MIN_BRIGHTNESS_CHANGE:
            yield Recommendation(
                "brightness",
                {
                    "dark_month": darkest[0],
                    "dark": round(darkest[1]),
                    "bright_month": brightest[0],
                    "bright": round(brightest[1]),
                },
            )


def _find_runtime_changes(report: Report) -> Iterator[Recommendation]:
    """Recommend an evaluation after the last change, unless one was run since."""
    if not report.changes:
        return
    last = report.changes[-1]
    evaluated = max(
        (runs.succeeded_at or 0 for runs in report.tasks if runs.task in (Task.EVALUATE, Task.EVALUATE_SERVED)),
        default=0,
    )
    if evaluated < datetime.fromisoformat(last.at).timestamp():
        yield Recommendation(
            "runtime_changed", {"day": last.at[:10], "name": last.name, "before": last.before, "after": last.after}
        )


def _find_failed_tasks(report: Report) -> Iterator[Recommendation]:
    """Name each task that failed in the quarter and has not succeeded since."""
    recovered = {runs.task for runs in report.tasks if (runs.succeeded_at or 0) > (runs.failed_at or 0)}
    for each in report.incidents:
        if each.kind == "task_failed" and each.subject not in recovered:
            yield Recommendation("task_failed", {"task": each.subject, "day": each.day})


def _find_missing_backup(report: Report) -> Iterator[Recommendation]:
    if not report.backup_days:
        return
    now = min(report.generated_at, report.quarter.end)
    succeeded = next((runs.succeeded_at for runs in report.tasks if runs.task is Task.BACKUP), None)
    if succeeded is None:
        yield Recommendation("no_backup", {})
    elif now - datetime.fromtimestamp(succeeded, UTC) > max(_MIN_BACKUP_AGE, timedelta(days=report.backup_days + 1)):
        yield Recommendation("old_backup", {"day": f"{datetime.fromtimestamp(succeeded, UTC):%Y-%m-%d}"})


def _find_refused_logins(report: Report) -> Iterator[Recommendation]:
    refused = sum(each.count for each in report.security if (each.event, each.outcome) == ("token", "refused"))
    if refused > MAX_REFUSED_LOGINS:
        yield Recommendation("refused_logins", {"count": refused})


def _find_latency(report: Report) -> Iterator[Recommendation]:
    measured = [(m.name, m.latency_ms[_LATENCY_PERCENTILE]) for m in report.months if m.latency_ms is not None]
    if measured and measured[-1][1] > _LATENCY_FACTOR * measured[0][1]:
        (first, before), (last, now) = measured[0], measured[-1]
        yield Recommendation("slower", {"first": first, "before": round(before), "last": last, "now": round(now)})


def _find_savings(report: Report) -> Iterator[Recommendation]:
    if not _is_measured_long_enough(report):
        return
    whole = sum(month.whole.amounts.total for month in report.costs)
    sleeps = [month.sleep for month in report.costs if month.sleep is not None]
    saved = sum(sleep.saves.total for sleep in sleeps)
    if whole and saved > MIN_SLEEP_SAVING * whole:
        yield Recommendation(
            "sleep",
            {
                "percent": _percent(saved, whole),
                "saved": f"{saved:.2f}",
                "currency": report.costs[0].currency,
                "hours": sum(sleep.idle_hours for sleep in sleeps),
            },
        )


def _find_machine(report: Report) -> Iterator[Recommendation]:
    compared = [month.machines for month in report.costs if month.machines]
    if not compared:
        return
    smaller, present, _ = (list(sizes) for sizes in zip(*compared, strict=True))
    if any(not each.fits for each in present):
        busiest = max(present, key=lambda each: max(each.processor_load, each.memory_load))
        yield Recommendation(
            "larger_machine",
            {"processor": _points(busiest.processor_load), "memory": _points(busiest.memory_load)},
        )
    elif all(each.fits for each in smaller) and _is_measured_long_enough(report):
        busiest = max(smaller, key=lambda each: max(each.processor_load, each.memory_load))
        yield Recommendation(
            "smaller_machine",
            {
                "processor": _points(busiest.processor_load),
                "memory": _points(busiest.memory_load),
                "saved": f"{present[-1].reserved - smaller[-1].reserved:.2f}",
                "currency": report.costs[0].currency,
            },
        )


def _is_measured_long_enough(report: Report) -> bool:
    return sum(month.measured_hours for month in report.costs) >= MIN_MEASURED_HOURS


def _find_main_version(versions: Sequence[ServedVersion]) -> ServedVersion | None:
    return max(versions, key=lambda version: version.predictions, default=None)


def _percent(part: float, whole: float) -> float:
    return round(100 * part / whole, 1)


def _points(share: float) -> float:
    return round(100 * share, 1)


_RULES: Sequence[Rule] = (
    _find_incidents,
    _find_accuracy,
    _find_validation_loss,
    _find_undecided_versions,
    _find_photographs,
    _find_drift,
    _find_brightness,
    _find_runtime_changes,
    _find_missing_labels,
    _find_failed_tasks,
    _find_missing_backup,
    _find_refused_logins,
    _find_latency,
    _find_machine,
    _find_savings,
)
