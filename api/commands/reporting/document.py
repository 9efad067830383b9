"""The content of a quarterly report, independent of its language. None and empty lists mean missing data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from datetime import datetime

from msgspec import Struct

from api.commands.reporting.quarter import Quarter
from model.quality.intervals import Interval
from monitoring.cost.month import MonthCost
from monitoring.quality.drift.store import DriftFinding
from monitoring.quality.evaluations import EvaluationRecord
from monitoring.tasks.runs import TaskRuns


class PeriodTraffic(Struct, frozen=True):
    """Requests of a month, such as 2026-11, or of the week that begins on a Monday, such as 2026-11-02.

    Latency is the sum of the stages that the ledger records (queue, decode, infer, and explain if requested), in
    milliseconds; None without predictions. `brightness` is the mean over the images, 0 to 255; None if not recorded.
    """

    name: str
    requests: int
    predictions: int
    abstained: int
    client_errors: int
    server_errors: int
    latency_ms: Mapping[int, float] | None  # by percentile
    brightness: float | None


class CallerTraffic(Struct, frozen=True):
    """One caller, by name or subject. `not_aerial` counts the images that the model rejected as not aerial."""

    name: str
    predictions: int
    not_aerial: int
    low_confidence: int
    brightness: float | None


class ErrorCount(Struct, frozen=True):
    """Requests that ended with the same status and stable code."""

    status: int
    code: str
    count: int


class Incident(Struct, frozen=True):
    """A day with at least five server errors for more than 1 % of its requests, a failed task or a rejected candidate.

    `requests` is 0 for tasks and candidates.
    """

    day: str
    kind: str  # "server_errors", "task_failed" or "candidate_rejected"
    subject: str
    count: int
    requests: int


class ServedVersion(Struct, frozen=True):
    """A version of a model, when it first and last predicted in the quarter, and its quality in that time.

    `accuracy` and `ece` are measured on labelled predictions. `estimate` is the accuracy estimated from the confidence
    of all predictions (CBPE).
    """

    model: str
    version: str
    first_at: str
    last_at: str
    predictions: int
    abstained: int
    labelled: int
    accuracy: Interval | None
    ece: float | None
    estimate: Interval | None

    @property
    def full_name(self) -> str:
        return f"{self.model}-v{self.version}"


class AliasChange(Struct, frozen=True):
    """A decision about an alias of a model: from one version to another, by whom and why."""

    at: str
    model: str
    alias: str
    before: str | None
    after: str | None
    who: str
    why: str

    @property
    def version(self) -> str:
        """The full name of the version that the alias points to after the change."""
        return f"{self.model}-v{self.after}"


class RuntimeChange(Struct, frozen=True):
    """A change of a library's version, or of the processor, between two predictions."""

    at: str
    name: str
    before: str
    after: str


def find_runtime_changes(
    name: str, days: Mapping[str, Mapping[str, str]], before: Sequence[str]
) -> Iterator[RuntimeChange]:
    """Yield the changes of one part of the runtime from day to day.

    `before` are the values of the last day before the first one, newest first; there are none before the first
    prediction. `days` maps each day to the values that were used on it, and to the time at which each was first used.
    Replicas with different values do not count as changes: a value that was also used on the day before becomes
    current only if the previous value is not used any more.
    """
    current = before[0] if before else None
    yesterday: Iterable[str] = before
    for _, values in sorted(days.items()):
        for value, at in sorted(values.items(), key=lambda pair: pair[1]):
            if current is None:
                current = value
            elif value != current and (value not in yesterday or current not in values):
                yield RuntimeChange(at, name, current, value)
                current = value
        yesterday = values


class CandidateVerdict(Struct, frozen=True):
    """The judgement of a candidate on live traffic."""

    at: str
    model: str
    candidate: str
    production: str
    verdict: str


class SecurityEvents(Struct, frozen=True):
    """The number of events in the audit log with the same name and outcome."""

    event: str
    outcome: str
    count: int


class Recommendation(Struct, frozen=True):
    """A rule that applied, and the values to fill into its text. A tuple contains names of metrics."""

    rule: str
    values: Mapping[str, str | int | float | tuple[str, ...]]


class Report(Struct, frozen=True):
    """`before` are the versions served in the previous quarter; `names` are the names of users by id.

    `decided_before` has the full names of versions to which an alias was moved before the quarter. `erased` counts the
    entries without a payload, `unreadable` those that were altered. `backup_days` is 0 if another program makes the
    backups.
    """

    quarter: Quarter
    generated_at: datetime
    release: str
    months: Sequence[PeriodTraffic]
    weeks: Sequence[PeriodTraffic]
    callers: Sequence[CallerTraffic]
    errors: Sequence[ErrorCount]
    incidents: Sequence[Incident]
    versions: Sequence[ServedVersion]
    before: Sequence[ServedVersion]
    aliases: Sequence[AliasChange]
    decided_before: Set[str]
    verdicts: Sequence[CandidateVerdict]
    validations: Sequence[EvaluationRecord]
    drift: Sequence[DriftFinding]
    changes: Sequence[RuntimeChange]
    tasks: Sequence[TaskRuns]
    security: Sequence[SecurityEvents]
    costs: Sequence[MonthCost]
    names: Mapping[str, str]
    erased: int
    unreadable: int
    backup_days: int
    recommendations: Sequence[Recommendation] = ()

    @property
    def complete(self) -> bool:
        return self.generated_at >= self.quarter.end

    @property
    def requests(self) -> int:
        return sum(month.requests for month in self.months)

    @property
    def predictions(self) -> int:
        return sum(month.predictions for month in self.months)

    @property
    def server_errors(self) -> int:
        return sum(month.server_errors for month in self.months)
