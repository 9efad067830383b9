"""Commands that run on a schedule: when each last succeeded and failed, on any machine that uses the database."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

from monitoring.metrics.groups.base import MetricGroup
from monitoring.metrics.scraped import ScrapedMetric, Values, single
from monitoring.tasks.calendar import CalendarEntry
from monitoring.tasks.runs import Task, TaskRuns


class TaskMetrics(MetricGroup):
    """`task_runs` and `calendar` are the newest that this process has read from the database."""

    def __init__(self, registry: CollectorRegistry, shown: CollectorRegistry) -> None:
        super().__init__(registry, shown)
        self.task_runs: Sequence[TaskRuns] = ()
        self.calendar: Sequence[CalendarEntry] = ()
        self.task_successes = ScrapedMetric(
            GaugeMetricFamily,
            "atalaya_task_last_success_timestamp_seconds",
            "When a scheduled command last succeeded. Absent for one that never did.",
            ["task"],
            registry=shown,
            read=lambda: _drop_none({(run.task,): run.succeeded_at for run in self.task_runs}),
        )
        self.task_failures = ScrapedMetric(
            GaugeMetricFamily,
            "atalaya_task_last_failure_timestamp_seconds",
            "When a scheduled command last failed. Absent for one that never did.",
            ["task"],
            registry=shown,
            read=lambda: _drop_none({(run.task,): run.failed_at for run in self.task_runs}),
        )
        self.task_due = ScrapedMetric(
            GaugeMetricFamily,
            "atalaya_task_due_timestamp_seconds",
            "When a task of the maintenance calendar is due. The task is overdue if this time has passed.",
            ["task"],
            registry=shown,
            read=lambda: {(entry.task,): entry.due_at for entry in self.calendar},
        )
        self.ledger_verified = ScrapedMetric(
            GaugeMetricFamily,
            "atalaya_ledger_verified_timestamp_seconds",
            "When `atalaya ledger verify` last found the whole ledger unchanged. Absent if it never did.",
            registry=shown,
            read=self._read_verified_at,
        )
        self.ledger_verification_failures = ScrapedMetric(
            CounterMetricFamily,
            "atalaya_ledger_verification_failures_total",
            "Runs of `atalaya ledger verify` that failed. Absent until it has run.",
            registry=shown,
            read=self._read_verification_failures,
        )

    def _read_verified_at(self) -> Values:
        verifications = self._find_verifications()
        return single(None if verifications is None else verifications.succeeded_at)

    def _read_verification_failures(self) -> Values:
        verifications = self._find_verifications()
        return single(None if verifications is None else verifications.failures)

    def _find_verifications(self) -> TaskRuns | None:
        return next((runs for runs in self.task_runs if runs.task is Task.LEDGER_VERIFY), None)


def _drop_none(times: dict[tuple[str, ...], int | None]) -> Values:
    return {labels: time for labels, time in times.items() if time is not None}
