"""Candidates: how they compare with the model in production, and the verdicts."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

from monitoring.metrics.groups.base import MetricGroup


class CanaryMetrics(MetricGroup):
    def __init__(self, registry: CollectorRegistry, shown: CollectorRegistry) -> None:
        super().__init__(registry, shown)
        self.canary_comparisons = Counter(
            "atalaya_canary_comparisons_total",
            "Comparisons of a candidate with the model in production, by whether the candidate was worse or better.",
            ["metric", "result"],
            registry=registry,
        )
        self.canary_log_e = Gauge(
            "atalaya_canary_log_e",
            "Evidence for taking the candidate back and for promoting it, as the natural logarithm of an e-value.",
            ["metric", "direction"],
            registry=registry,
            multiprocess_mode="livemostrecent",
        )
        self.canary_shadow = Counter(
            "atalaya_canary_shadow_total",
            "Images for the other model of a trial to classify after the response: compared, dropped or failed.",
            ["outcome"],
            registry=registry,
        )
        self.canary_verdicts = Counter(
            "atalaya_canary_verdicts_total", "Verdicts on candidates.", ["verdict"], registry=registry
        )
