"""The container of the gateway as its control group reports it, and NVIDIA GPUs.

Metrics without a source are absent: those of a quota need a quota, those of GPUs a GPU and the package nvidia-ml-py.
"""

from __future__ import annotations

from functools import partial

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

from monitoring.machine.cgroups import count_oom_kills, read_throttling, read_working_set
from monitoring.machine.gpus import read_gpus
from monitoring.metrics.groups.base import MetricGroup
from monitoring.metrics.scraped import ScrapedMetric, Values, single

_THROTTLING = (
    ("periods", "periods", "Periods of the container's processor quota; absent without a quota."),
    ("throttled", "throttled_periods", "Periods in which the container has used up its processor quota."),
    ("throttled_s", "throttled_seconds", "Time for which threads had to wait for the next period."),
)
_GPU = (
    ("utilization", "utilization_ratio", "Share of the time in which the GPU worked, 0 to 1."),
    ("used_bytes", "memory_used_bytes", "Memory of the GPU in use, by all programs."),
    ("total_bytes", "memory_total_bytes", "Memory of the GPU."),
)


class MachineMetrics(MetricGroup):
    def __init__(self, registry: CollectorRegistry, shown: CollectorRegistry) -> None:
        super().__init__(registry, shown)
        self.container_memory = ScrapedMetric(
            GaugeMetricFamily,
            "atalaya_container_memory_working_set_bytes",
            "Memory of the control group whose limit applies, without file pages that the kernel can drop at once.",
            registry=shown,
            read=lambda: single(read_working_set()),
        )
        self.container_oom_kills = ScrapedMetric(
            CounterMetricFamily,
            "atalaya_container_oom_kills_total",
            "Processes that the kernel has killed in the control group whose memory limit applies.",
            registry=shown,
            read=lambda: single(count_oom_kills()),
        )
        for field, name, documentation in _THROTTLING:
            full_name, read = f"atalaya_container_cpu_{name}_total", partial(_select_throttling, field)
            ScrapedMetric(CounterMetricFamily, full_name, documentation, registry=shown, read=read)
        for field, name, documentation in _GPU:
            full_name, read = f"atalaya_gpu_{name}", partial(_select_gpus, field)
            ScrapedMetric(GaugeMetricFamily, full_name, documentation, ["gpu"], registry=shown, read=read)


def _select_throttling(field: str) -> Values:
    throttling = read_throttling()
    return single(None if throttling is None else getattr(throttling, field))


def _select_gpus(field: str) -> Values:
    values = {(number,): getattr(state, field) for number, state in read_gpus().items()}
    return {labels: value for labels, value in values.items() if value is not None}
