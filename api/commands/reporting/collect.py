"""Collects a quarterly report from the database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version

from msgspec import Struct
from sqlalchemy import Engine, func, or_, select
from sqlalchemy.ext.asyncio import AsyncEngine

from api.commands.database import open_migrated_engine, run_with_engine
from api.commands.ledger.database import open_snapshot
from api.commands.models.quality.live_sums import update_sums
from api.commands.reporting.document import Incident, Report, SecurityEvents, ServedVersion
from api.commands.reporting.ledger_facts import QuarterFacts, find_decided_before, find_runtime_before, read_quarter
from api.commands.reporting.month_cost import compute_costs
from api.commands.reporting.quarter import Quarter
from api.services.measuring.quality import compute_versions
from api.settings import Settings
from auth.accounts.store import UserStore
from model.canary.judge import Verdict
from model.quality.results import VersionQuality
from monitoring.audit.tables import audit_events
from monitoring.chains.timestamps import format_timestamp
from monitoring.errors import ModelNotRecorded
from monitoring.quality.drift.store import DriftFinding
from monitoring.quality.drift.tables import drift_findings
from monitoring.quality.evaluation_store import EvaluationStore
from monitoring.quality.evaluations import EvaluationRecord
from monitoring.quality.reader import QualityReader
from monitoring.tasks.runs import TaskRuns
from monitoring.tasks.store import TaskRunStore
from storage.transactions import reading


class _Stored(Struct, frozen=True):
    """What is read with the asynchronous engine: names by user id, task runs, audit events, evaluations and drift."""

    names: Mapping[str, str]
    tasks: Sequence[TaskRuns]
    security: Sequence[SecurityEvents]
    validations: Sequence[EvaluationRecord]
    drift: Sequence[DriftFinding]


def collect_report(settings: Settings, quarter: Quarter) -> Report:
    """Return the report without recommendations. Raises LedgerUnavailable, DatabaseUnavailable, DatabaseMissing."""
    with open_snapshot(settings) as connection:
        facts, erased = read_quarter(connection, quarter)
        runtime = find_runtime_before(connection, quarter)
        decided = find_decided_before(connection, quarter, {model for model, _ in facts.versions})
    with open_migrated_engine(settings) as engine:
        update_sums(settings, engine)
        versions = _list_versions(engine, quarter, facts)
        served = {version.full_name for version in versions}
        before = _list_versions(engine, quarter.previous, None)
        costs = compute_costs(settings, engine, quarter.months)
    stored = run_with_engine(settings, lambda engine: _read_stored(engine, quarter))
    return Report(
        quarter,
        datetime.now(UTC),
        version("atalaya"),
        facts.list_months(),
        facts.list_weeks(),
        facts.list_callers(stored.names),
        facts.list_errors(),
        [*facts.list_incidents(), *_list_failures(quarter, stored.tasks), *_list_rejections(facts)],
        versions,
        before,
        sorted(facts.aliases, key=lambda change: change.at),
        decided,
        sorted(facts.verdicts, key=lambda verdict: verdict.at),
        stored.validations,
        [each for each in stored.drift if each.model in served],
        facts.list_runtime_changes(runtime),
        stored.tasks,
        stored.security,
        costs,
        stored.names,
        erased,
        facts.unreadable,
        settings.calendar.backup_days,
    )


async def _read_stored(engine: AsyncEngine, quarter: Quarter) -> _Stored:
    users = await UserStore(engine).list()
    columns = audit_events.c
    total = func.sum(columns.count)
    events = (
        select(columns.event, columns.outcome, total)
        .where(columns.at >= format_timestamp(quarter.start), columns.at < format_timestamp(quarter.end))
        .group_by(columns.event, columns.outcome)
        .order_by(total.desc(), columns.event, columns.outcome)
    )
    async with reading(engine) as connection:
        rows = (await connection.execute(events)).all()
    security = [SecurityEvents(event, outcome, int(count)) for event, outcome, count in rows]
    start, end = quarter.start.timestamp(), quarter.end.timestamp()
    validations = [each for each in await EvaluationStore(engine).list(int(start)) if each.at < end]
    names = {user.id: user.name for user in users}
    return _Stored(names, await TaskRunStore(engine).list(), security, validations, await _list_drift(engine, quarter))


async def _list_drift(engine: AsyncEngine, quarter: Quarter) -> Sequence[DriftFinding]:
    """Return the drift findings that were ongoing at any time in the quarter, the earliest first."""
    columns = drift_findings.c
    lasted = or_(columns.ended_at.is_(None), columns.ended_at >= format_timestamp(quarter.start))
    chosen = select(drift_findings).where(columns.since < format_timestamp(quarter.end), lasted)
    async with reading(engine) as connection:
        rows = await connection.execute(chosen.order_by(columns.since, columns.caller, columns.metric))
        return [DriftFinding(*row) for row in rows]


def _list_versions(engine: Engine, quarter: Quarter, facts: QuarterFacts | None) -> list[ServedVersion]:
    """Return the quality of each version that predicted in the quarter, and from `facts` when it first and last did."""
    served = []
    for model in sorted({sums.model for sums in QualityReader(engine).list_sums(quarter.start, None, quarter.end)}):
        try:
            versions = compute_versions(engine, model, None, quarter.start, quarter.end)
        except ModelNotRecorded:
            continue
        served += [_make_version(model, each, facts) for each in versions]
    return served


def _make_version(model: str, quality: VersionQuality, facts: QuarterFacts | None) -> ServedVersion:
    span = facts.versions.get((model, quality.version)) if facts is not None else None
    return ServedVersion(
        model,
        quality.version,
        span.first_at if span else "",
        span.last_at if span else "",
        quality.predictions,
        quality.abstained,
        quality.labelled,
        quality.accuracy,
        quality.ece,
        quality.estimated_accuracy,
    )


def _list_failures(quarter: Quarter, tasks: Sequence[TaskRuns]) -> list[Incident]:
    """Return the last failure of each scheduled task, if it was in the quarter. Earlier failures are not recorded."""
    start, end = quarter.start.timestamp(), quarter.end.timestamp()
    failed = [(runs.failed_at, runs) for runs in tasks if runs.failed_at is not None and start <= runs.failed_at < end]
    return [
        Incident(f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d}", "task_failed", runs.task, runs.failures, 0)
        for at, runs in failed
    ]


def _list_rejections(facts: QuarterFacts) -> list[Incident]:
    return [
        Incident(each.at[:10], "candidate_rejected", f"{each.model}-v{each.candidate}", 1, 0)
        for each in facts.verdicts
        if each.verdict == Verdict.TAKE_BACK
    ]
