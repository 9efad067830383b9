"""The list of all metrics, and docs/generated/metrics.md, the page that documents them; `make metrics` writes it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

from msgspec import Struct
from prometheus_client import CollectorRegistry, Gauge, ProcessCollector
from prometheus_client.metrics_core import Metric

from monitoring.metrics import Metrics
from monitoring.metrics.groups.base import MetricGroup
from monitoring.metrics.scraped import ScrapedMetric

_SUFFIXES = {"histogram": ("_bucket", "_count", "_sum"), "counter": ("_total",)}
_COMBINATIONS = {
    "livesum": "sum",
    "livemax": "maximum",
    "livemin": "minimum",
    "livemostrecent": "latest",
}
_SAME = "same in all"
_HEADER = "| metric | labels | type | workers | meaning |\n|---|---|---|---|---|\n"
_PAGE = """\
# Metrics

`make metrics` writes this page from the code. `GET /metrics` needs the scope `metrics:read`; `METRICS_PORT` serves the
same without credentials, for a private network ([settings](../configure.md)).

- **Several workers:** each of them serves the combined values of all. The column *workers* says how they are combined.
  Counters and histograms continue when a worker is replaced; gauges include only the running workers. Some values are
  the same in every worker.
- **Number of series:** no label has a value that callers choose. Methods, routes, statuses and codes come from fixed
  sets. Callers, models and engines have limits, beyond which they are counted as `other`. The numbers of versions and
  aliases depend only on operators. A fresh gateway with one model has about 150 series, and 14 more for each operation
  and status of a response. A caller without credentials who tries every method on every route causes fewer than 2000,
  which a test checks; callers who provoke every documented status of every operation, fewer than 8000.
- **Absent is not 0:** a value that the gateway cannot determine is absent, such as the state of a GPU if there is none.
- **Trace ids:** with one process, `http_server_request_duration_seconds` has exemplars with the `trace_id` of requests
  whose trace is recorded. Prometheus asks for OpenMetrics, the format that carries them, and keeps them with
  `--enable-feature=exemplar-storage`. The library that shares metrics between processes does not support exemplars.
"""


class MetricEntry(Struct, frozen=True):
    """One metric. `samples` are the names that queries use; `workers` says how the values of workers are combined."""

    name: str
    kind: str
    labels: Sequence[str]
    workers: str
    documentation: str
    samples: Sequence[str]


class _Recorder(CollectorRegistry):
    """Keeps the collectors in the order in which they are registered, including those that collect nothing here."""

    def __init__(self) -> None:
        super().__init__()
        self.collectors: list[Any] = []

    def register(self, collector: Any) -> None:
        super().register(collector)
        self.collectors.append(collector)


def list_groups() -> Iterator[tuple[str, str, Sequence[MetricEntry]]]:
    """Yield the title, the introduction and the metrics of each group, in the order of the page."""
    for group in Metrics.__bases__:
        if issubclass(group, MetricGroup):
            module, recorder = inspect.getmodule(group), _Recorder()
            group(recorder, recorder)
            title = (module.__name__ if module else "").rpartition(".")[2].capitalize()
            yield title, inspect.getdoc(module) or "", [_describe(collector) for collector in recorder.collectors]
    processes = [_make_entry(family, (), "combined") for family in ProcessCollector(registry=None).collect()]
    yield (
        "Process",
        "The operating system's view of the gateway; memory that processes share is counted once.",
        processes,
    )


def list_sample_names() -> set[str]:
    """Return the names of all samples that a gateway may expose, on any machine."""
    return {sample for _, _, entries in list_groups() for entry in entries for sample in entry.samples}


def render_page() -> str:
    """Return the page as Markdown."""
    return _PAGE + "".join(_render_group(*group) for group in list_groups())


def _render_group(title: str, introduction: str, entries: Sequence[MetricEntry]) -> str:
    rows = "".join(_render_row(entry) for entry in entries)
    return f"\n## {title}\n{introduction}\n\n{_HEADER}{rows}"


def _render_row(entry: MetricEntry) -> str:
    labels = ", ".join(f"`{label}`" for label in entry.labels)
    return f"| `{entry.name}` | {labels} | {entry.kind} | {entry.workers} | {entry.documentation} |\n"


def _describe(collector: Any) -> MetricEntry:
    (family,) = collector.describe()
    if isinstance(collector, ScrapedMetric):
        return _make_entry(family, collector.labels, _SAME)
    combination = _COMBINATIONS[collector._multiprocess_mode] if isinstance(collector, Gauge) else "sum"
    return _make_entry(family, collector._labelnames, combination)


def _make_entry(family: Metric, labels: Sequence[str], workers: str) -> MetricEntry:
    samples = [family.name + suffix for suffix in _SUFFIXES.get(family.type, ("",))]
    name = samples[0] if family.type == "counter" else family.name
    return MetricEntry(name, family.type, labels, workers, family.documentation, samples)


if __name__ == "__main__":
    print(render_page(), end="")
