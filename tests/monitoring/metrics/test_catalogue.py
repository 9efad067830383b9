"""The page that documents all metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from monitoring.metrics import Metrics
from monitoring.metrics.catalogue import list_groups, list_sample_names, render_page
from tests.support.paths import ROOT


def test_the_page_is_current() -> None:
    """docs/generated/metrics.md is the output of `make metrics`."""
    assert (ROOT / "docs/generated/metrics.md").read_text() == render_page()


def test_every_metric_is_listed() -> None:
    """The catalogue lists every metric that a gateway exposes on this machine, and those of containers and GPUs."""
    registry = CollectorRegistry()
    Metrics(registry)
    families = {family.name for family in registry.collect()}
    listed = list_sample_names()
    assert {name for name in families if not any(sample.startswith(name) for sample in listed)} == set()
    assert {
        "atalaya_gpu_utilization_ratio",
        "atalaya_container_cpu_throttled_seconds_total",
        "process_max_fds",
    } <= listed
    assert sum(len(entries) for _, _, entries in list_groups()) >= len(families)
