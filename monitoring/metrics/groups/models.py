"""The model in service, and how it was loaded."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.metrics_core import GaugeMetricFamily

from monitoring.metrics.groups.base import MetricGroup
from monitoring.metrics.scraped import ScrapedMetric, Values


class ModelMetrics(MetricGroup):
    """`aliases` are the newest that this process has read from the registry."""

    def __init__(self, registry: CollectorRegistry, shown: CollectorRegistry) -> None:
        super().__init__(registry, shown)
        self.aliases: Values = {}
        self.model_info = Gauge(
            "atalaya_model_info",
            "1 for the model in service, 0 for earlier ones.",
            ["model", "version", "digest", "backend"],
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.model_alias = ScrapedMetric(
            GaugeMetricFamily,
            "atalaya_model_alias",
            "1 for the version that each alias of the model in the registry points to. Absent without a registry.",
            ["model", "alias", "version"],
            registry=shown,
            read=lambda: self.aliases,
        )
        self.model_loads = Counter(
            "atalaya_model_loads_total",
            "Versions loaded to follow an alias: switched, or failed and not served.",
            ["outcome"],
            registry=registry,
        )
        self.registry_pulls = Counter(
            "atalaya_registry_pulls_total",
            "Checks of the registry's MLflow server: nothing changed, aliases moved, or failed.",
            ["outcome"],
            registry=registry,
        )
        self.weights_loaded = Counter(
            "atalaya_weights_loaded_total",
            "Models opened, by origin: prepared, or the artefact because the prepared copy was absent or rejected.",
            ["origin"],
            registry=registry,
        )
        self.preparations = Counter(
            "atalaya_preparations_total", "Builds of prepared copies, done or failed.", ["outcome"], registry=registry
        )
