"""The sections of a report: texts, charts and tables in one language, from the numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from api.commands.output import format_interval
from api.commands.reporting.charts import Charts
from api.commands.reporting.document import CallerTraffic, PeriodTraffic, Report, ServedVersion
from api.commands.reporting.layout import (
    NOTHING,
    Section,
    Table,
    Translate,
    describe_change,
    format_percent,
    format_second,
    name_drifting,
)
from api.commands.reporting.money import build_cost
from api.commands.reporting.operation import build_changes, build_errors, build_security, build_tasks
from api.services.measuring.drift.report import CURRENT
from model.quality.intervals import Interval
from monitoring.chains.timestamps import format_timestamp
from monitoring.cost.formula import Prices
from monitoring.quality.evaluations import EvaluationRecord

_MAX_CALLERS = 20
_MONTH_HEADS = ("month", "requests", "predictions", "abstained", "client_errors", "server_errors")
_VALIDATION_HEADS = ("day", "version", "images_count", "accuracy_percent", "macro_f1", "ece", "compared", "loss")
_DRIFT_HEADS = ("caller", "version", "what_differs", "how", "since", "until", "reference", "recent")
_CALLER_HEADS = ("caller", "predictions", "not_aerial", "low_confidence", "brightness")


def build_sections(report: Report, prices: Prices, t: Translate) -> Sequence[Section]:
    charts = Charts()
    builders: Sequence[Callable[[Report, Charts, Translate], Section]] = (
        _build_accuracy,
        _build_validation,
        _build_drift,
        _build_versions,
        _build_images,
        _build_traffic,
        _build_latency,
    )
    return [
        *(build(report, charts, t) for build in builders),
        build_errors(report, t),
        build_security(report, t),
        build_cost(report, prices, charts, t),
        build_changes(report, t),
        build_tasks(report, t),
    ]


def _build_accuracy(report: Report, charts: Charts, t: Translate) -> Section:
    section = Section("accuracy", t("accuracy"), [t("accuracy.text")])
    if not report.versions:
        section.missing.append(t("accuracy.missing"))
        return section
    names = [version.full_name for version in report.versions]
    intervals = {
        t("labelled_accuracy"): [version.accuracy for version in report.versions],
        t("estimate"): [version.estimate for version in report.versions],
    }
    section.add_chart(t("accuracy.chart"), charts.draw_intervals(names, intervals))
    before = {version.full_name: version for version in report.before}
    heads = ("version", "predictions", "labelled", "labelled_accuracy", "ece", "estimate", "before")
    rows = [_format_version(version, before.get(version.full_name)) for version in report.versions]
    section.tables.append(Table(t("accuracy.table"), [t(head) for head in heads], rows))
    unlabelled = [version.full_name for version in report.versions if not version.labelled]
    section.missing += [t("accuracy.no_labels", version=name) for name in unlabelled]
    section.notes.append(t("accuracy.note"))
    return section


def _format_version(version: ServedVersion, before: ServedVersion | None) -> Sequence[str]:
    return (
        version.full_name,
        str(version.predictions),
        str(version.labelled),
        format_interval(version.accuracy) or NOTHING,
        NOTHING if version.ece is None else f"{version.ece:.3f}",
        format_interval(version.estimate) or NOTHING,
        format_interval(before.accuracy if before is not None else None) or NOTHING,
    )


def _build_validation(report: Report, _: Charts, t: Translate) -> Section:
    section = Section("validation", t("validation"), [t("validation.text")])
    rows = [_format_validation(each, t) for each in report.validations]
    section.add_table(Table(t("validation.table"), [t(head) for head in _VALIDATION_HEADS], rows, 2))
    if not rows:
        section.missing.append(t("validation.missing"))
    return section


def _format_validation(record: EvaluationRecord, t: Translate) -> Sequence[str]:
    compared = record.comparison
    return (
        f"{datetime.fromtimestamp(record.at, UTC):%Y-%m-%d}",
        record.full_name,
        str(record.n),
        format_interval(Interval(record.accuracy, record.lower, record.upper)),
        f"{100 * record.macro_f1:.1f}",
        f"{record.ece:.3f}",
        NOTHING if compared is None else f"-{compared.lost} +{compared.gained} (p = {compared.p_value:.3g})",
        t("yes") if record.is_loss else t("no"),
    )


def _build_drift(report: Report, _: Charts, t: Translate) -> Section:
    section = Section("drift", t("drift"), [t("drift.text")])
    # A finding about a replaced version is never closed, so it ends with the last prediction of the version.
    still = format_timestamp(min(report.generated_at, report.quarter.end) - CURRENT)
    stopped = {each.full_name: each.last_at for each in report.versions if "" < each.last_at < still}
    rows = [
        (
            name_drifting(each, report.names) or t("drift.everyone"),
            each.model,
            t(f"metric.{each.metric}"),
            describe_change(each, t),
            format_second(each.since),
            format_second(end) if (end := each.ended_at or stopped.get(each.model)) else t("drift.lasts"),
            NOTHING if each.reference is None else f"{each.reference:.2f}",
            NOTHING if each.recent is None else f"{each.recent:.2f}",
        )
        for each in report.drift
    ]
    section.add_table(Table(t("drift.table"), [t(head) for head in _DRIFT_HEADS], rows, 6))
    if not rows:
        section.missing.append(t("drift.missing"))
    return section


def _build_versions(report: Report, _: Charts, t: Translate) -> Section:
    section = Section("versions", t("versions"))
    served = [(each.full_name, format_second(each.first_at), format_second(each.last_at)) for each in report.versions]
    section.add_table(Table(t("versions.served"), [t("version"), t("first"), t("last")], served))
    moves = [
        (
            format_second(each.at),
            each.model,
            each.alias,
            each.before or t("none"),
            each.after or t("none"),
            each.who,
            each.why,
        )
        for each in report.aliases
    ]
    heads = [t("at"), t("model"), t("alias"), t("from"), t("to"), t("who"), t("why")]
    section.add_table(Table(t("versions.moves"), heads, moves, len(heads)))
    verdicts = [
        (format_second(each.at), each.model, each.candidate, each.production, t(f"verdict.{each.verdict}"))
        for each in report.verdicts
    ]
    heads = [t("at"), t("model"), t("candidate"), t("production"), t("verdict")]
    section.add_table(Table(t("versions.verdicts"), heads, verdicts, len(heads)))
    if not report.aliases:
        section.missing.append(t("versions.missing"))
    return section


def _build_images(report: Report, charts: Charts, t: Translate) -> Section:
    section = Section("images", t("images"), [t("images.text")])
    if any(week.brightness is not None for week in report.weeks):
        values = {t("brightness"): [week.brightness for week in report.weeks]}
        section.add_chart(t("images.chart"), charts.draw_lines([week.name for week in report.weeks], values))
    else:
        section.missing.append(t("images.missing"))
    return section


def _build_traffic(report: Report, charts: Charts, t: Translate) -> Section:
    section = Section("traffic", t("traffic"))
    if report.requests:
        values = {t("predictions"): [week.predictions for week in report.weeks]}
        section.add_chart(t("traffic.chart"), charts.draw_stack([week.name for week in report.weeks], values))
        months = [_format_month(month) for month in report.months]
        section.tables.append(Table(t("traffic.months"), [t(head) for head in _MONTH_HEADS], months))
        callers = [_format_caller(caller) for caller in report.callers[:_MAX_CALLERS]]
        section.add_table(Table(t("traffic.callers"), [t(head) for head in _CALLER_HEADS], callers))
    else:
        section.missing.append(t("traffic.missing"))
    if report.erased:
        section.missing.append(t("traffic.erased", erased=report.erased))
    if report.unreadable:
        section.missing.append(t("traffic.unreadable", unreadable=report.unreadable))
    return section


def _format_month(month: PeriodTraffic) -> Sequence[str]:
    counts = month.requests, month.predictions, month.abstained, month.client_errors, month.server_errors
    return month.name, *map(str, counts)


def _format_caller(caller: CallerTraffic) -> Sequence[str]:
    return (
        caller.name,
        str(caller.predictions),
        format_percent(caller.not_aerial, caller.predictions),
        format_percent(caller.low_confidence, caller.predictions),
        NOTHING if caller.brightness is None else f"{caller.brightness:.0f}",
    )


def _build_latency(report: Report, charts: Charts, t: Translate) -> Section:
    section = Section("latency", t("latency"), [t("latency.text")])
    measured = [month for month in report.months if month.latency_ms is not None]
    if not measured:
        section.missing.append(t("latency.missing"))
        return section
    percentiles = {50: t("median"), 95: t("percentile", percent=95), 99: t("percentile", percent=99)}
    series = {
        name: [week.latency_ms[percent] if week.latency_ms else None for week in report.weeks]
        for percent, name in percentiles.items()
    }
    section.add_chart(t("latency.chart"), charts.draw_lines([week.name for week in report.weeks], series))
    rows = [(month.name, *(f"{value:.1f}" for value in (month.latency_ms or {}).values())) for month in measured]
    section.tables.append(Table(t("latency.table"), [t("month"), *percentiles.values()], rows))
    return section
