"""The metrics of several worker processes as one, whichever of them is asked.

prometheus-client's multiprocess mode keeps counters in files. Here a file belongs to a worker's place, not to its
process: who takes the place over counts on, so that nothing grows and nothing falls back when a worker is replaced.
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

# How the figures of several processes become one. Each process has a limit of open files of its own: the one that is
# nearest to it counts.
_COMBINED: dict[str, Callable[[Iterable[float]], float]] = {
    "process_virtual_memory_bytes": sum,
    "process_resident_memory_bytes": sum,
    "process_cpu_seconds": sum,
    "process_start_time_seconds": min,
    "process_open_fds": max,
    "process_max_fds": max,
}
_CHILDREN_TIMES = slice(13, 15)  # in /proc/PID/stat after the name: children that have ended, in user and system mode

Processes = Callable[[], Sequence[int]]


def share_metrics(folder: Path, place: int) -> None:
    """Keep the metrics that are made from here on in files of `folder`, as the worker at `place`."""
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)  # the library reads it itself
    values.ValueClass = values.MultiProcessValue(lambda: place)  # type: ignore[no-untyped-call]


def forget_gauges(folder: Path, place: int) -> None:
    """The worker at `place` has ended: what it was doing it does no more; what it has done stays counted."""
    for path in folder.glob(f"gauge_*_{place}.db"):
        with suppress(FileNotFoundError):
            path.unlink()


def shared_registry(folder: Path, processes: Processes) -> CollectorRegistry:
    """What all workers count in `folder`, and `process_*` over `processes`; the first of these started the others."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(folder))  # type: ignore[no-untyped-call]
    registry.register(_AllProcesses(processes))
    return registry


class _AllProcesses:
    """`process_*` added up; memory that processes share with each other counts once."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes

    def collect(self) -> Iterator[Metric]:
        results: dict[str, list[float]] = defaultdict(list)
        families: dict[str, Metric] = {}
        first, *others = self._processes()
        for pid in (first, *others):
            for family in _of_process(pid):
                families[family.name] = family
                results[family.name].append(family.samples[0].value)
        results["process_cpu_seconds"].append(_ended_children_seconds(first))
        for name, family in families.items():
            kind = CounterMetricFamily if family.type == "counter" else GaugeMetricFamily
            yield kind(name, family.documentation, value=_COMBINED[name](results[name]))


def _of_process(pid: int) -> Iterator[Metric]:
    for family in ProcessCollector(pid=lambda: pid, registry=None).collect():
        if family.name == "process_resident_memory_bytes":
            resident = _proportional_bytes(pid) or family.samples[0].value
            yield GaugeMetricFamily(family.name, "Resident memory in bytes; shared pages count once.", value=resident)
        else:
            yield family


def _proportional_bytes(pid: int) -> float | None:
    """Resident memory with its share of what others have mapped too; None where the system does not tell."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return next(float(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    except (OSError, StopIteration):
        return None


def _ended_children_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(float, fields[_CHILDREN_TIMES])) / os.sysconf("SC_CLK_TCK")
