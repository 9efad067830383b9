"""The parts of a section of a report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from markupsafe import Markup
from msgspec import Struct, field

from model.drift.metrics import Metric
from monitoring.quality.drift.store import ALL, DriftFinding

Translate = Callable[..., str]
"""Returns a text by its key, with its placeholders replaced by values."""

NOTHING = "-"
"""The content of a cell without a value."""

_SECOND_LENGTH = len("2026-11-03T09:30:00")


class Table(Struct, frozen=True):
    """The columns from `numeric_from` on are aligned to the right."""

    caption: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric_from: int = 1


class Chart(Struct, frozen=True):
    caption: str
    svg: Markup


class Section(Struct):
    """`missing` names the data that does not exist; `notes` explain the tables."""

    id: str
    title: str
    texts: list[str] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add_chart(self, caption: str, svg: str) -> None:
        self.charts.append(Chart(caption, Markup(svg)))  # noqa: S704  (pygal escapes the names in it)

    def add_table(self, table: Table) -> None:
        """Add the table, unless it has no rows."""
        if table.rows:
            self.tables.append(table)


def name_drifting(finding: DriftFinding, names: Mapping[str, str]) -> str:
    """Return the caller that a finding is about, or "" for all callers together."""
    return names.get(finding.caller, finding.caller) if finding.caller != ALL else ""


def describe_change(finding: DriftFinding, t: Translate) -> str:
    """Return how a metric differs, or for the class mix, which class became more frequent."""
    return finding.change if finding.metric == Metric.CLASS_MIX else t(f"change.{finding.change}")


def format_second(moment: str) -> str:
    """Format an ISO 8601 time in UTC to the second."""
    return moment[:_SECOND_LENGTH].replace("T", " ")


def format_percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f}" if whole else NOTHING
