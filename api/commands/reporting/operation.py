"""The sections about operations: errors, security, changes and scheduled tasks."""

from __future__ import annotations

from datetime import UTC, datetime

from api.commands.reporting.document import Incident, Report
from api.commands.reporting.layout import Section, Table, Translate, format_second


def build_errors(report: Report, t: Translate) -> Section:
    section = Section("errors", t("errors"))
    incidents = [(each.day, _describe_incident(each, t)) for each in report.incidents]
    section.add_table(Table(t("errors.incidents"), [t("day"), t("what")], incidents, 2))
    errors = [(str(each.status), each.code, str(each.count)) for each in report.errors]
    section.add_table(Table(t("errors.table"), [t("status"), t("code"), t("count")], errors, 2))
    if not incidents:
        section.missing.append(t("incidents.missing"))
    if not errors:
        section.missing.append(t("errors.missing"))
    return section


def _describe_incident(incident: Incident, t: Translate) -> str:
    values = {"count": incident.count, "requests": incident.requests, "subject": incident.subject}
    return t(f"incident.{incident.kind}", **values)


def build_security(report: Report, t: Translate) -> Section:
    section = Section("security", t("security"), [t("security.text")])
    events = [(each.event, each.outcome, str(each.count)) for each in report.security]
    section.add_table(Table(t("security.table"), [t("event"), t("outcome"), t("count")], events, 2))
    if not events:
        section.missing.append(t("security.missing"))
    return section


def build_changes(report: Report, t: Translate) -> Section:
    section = Section("changes", t("changes"), [t("changes.text")])
    changes = [(format_second(each.at), each.name, each.before, each.after) for each in report.changes]
    section.add_table(Table(t("changes.table"), [t("at"), t("name"), t("from"), t("to")], changes, 4))
    if not changes:
        section.missing.append(t("changes.missing"))
    return section


def build_tasks(report: Report, t: Translate) -> Section:
    section = Section("tasks", t("tasks"))
    runs = [
        (
            each.task.value,
            _format_run(each.succeeded_at, t),
            _format_run(each.failed_at, t),
            str(each.failures),
        )
        for each in report.tasks
    ]
    section.add_table(Table(t("tasks.table"), [t("task"), t("succeeded"), t("failed"), t("failures")], runs, 3))
    if not runs:
        section.missing.append(t("tasks.missing"))
    return section


def _format_run(at: int | None, t: Translate) -> str:
    return t("never") if at is None else f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M}"
