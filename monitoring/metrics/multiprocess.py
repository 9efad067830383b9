"""Combines the metrics of several worker processes, so that each process can serve all metrics.

prometheus-client's multiprocess mode stores metrics in files. Here a file belongs to a worker's slot, not to its
process: a replacement continues the counters, so the number of files is constant and no counter is reset.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from prometheus_client import CollectorRegistry, ProcessCollector, values
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector

from monitoring.machine.memory import proportional_bytes

# How the values of several processes are combined. Each process has its own limit of open files, so the largest number
# of open files matters.
_COMBINERS: dict[str, Callable[[Iterable[float]], float]] = {
    "process_virtual_memory_bytes": sum,
    "process_resident_memory_bytes": sum,
    "process_cpu_seconds": sum,
    "process_start_time_seconds": min,
    "process_open_fds": max,
    "process_max_fds": max,
}
_CHILDREN_TIMES = slice(13, 15)  # in /proc/PID/stat after the name: user and system time of ended children

ListProcesses = Callable[[], Sequence[int]]


def share_metrics(folder: Path, slot: int) -> None:
    """Store the metrics that are created from now on in files of `folder`, as the worker in `slot`."""
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)  # read by the library
    values.ValueClass = values.MultiProcessValue(lambda: slot)  # type: ignore[no-untyped-call]


def remove_gauges(folder: Path, slot: int) -> None:
    """Delete the gauges of the worker in `slot`, which has ended; its counters and histograms stay."""
    for path in folder.glob(f"gauge_*_{slot}.db"):
        with suppress(FileNotFoundError):
            path.unlink()


def build_shared_registry(folder: Path, list_processes: ListProcesses) -> CollectorRegistry:
    """Return a registry of the metrics in `folder`, and of `process_*` over all processes.

    `list_processes` returns process ids; the first process started the others.
    """
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(folder))  # type: ignore[no-untyped-call]
    registry.register(_AllProcesses(list_processes))
    return registry


class _AllProcesses:
    """Collects `process_*` of several processes; memory that they share is counted once."""

    def __init__(self, list_processes: ListProcesses) -> None:
        self._list_processes = list_processes

    def collect(self) -> Iterator[Metric]:
        results: dict[str, list[float]] = defaultdict(list)
        families: dict[str, Metric] = {}
        first, *others = self._list_processes()
        for pid in (first, *others):
            for family in _collect_process(pid):
                families[family.name] = family
                results[family.name].append(family.samples[0].value)
        results["process_cpu_seconds"].append(_read_ended_children_seconds(first))
        for name, family in families.items():
            kind = CounterMetricFamily if family.type == "counter" else GaugeMetricFamily
            yield kind(name, family.documentation, value=_COMBINERS[name](results[name]))


def _collect_process(pid: int) -> Iterator[Metric]:
    for family in ProcessCollector(pid=lambda: pid, registry=None).collect():
        if family.name == "process_resident_memory_bytes":
            documentation = "Resident memory in bytes; shared pages are counted once."
            yield GaugeMetricFamily(family.name, documentation, value=proportional_bytes(pid))
        else:
            yield family


def _read_ended_children_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(float, fields[_CHILDREN_TIMES])) / os.sysconf("SC_CLK_TCK")
