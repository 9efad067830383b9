"""How good the models are on live traffic."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

from monitoring.metrics.groups.base import MetricGroup


class QualityMetrics(MetricGroup):
    def __init__(self, registry: CollectorRegistry, shown: CollectorRegistry) -> None:
        super().__init__(registry, shown)
        self.labels = Counter(
            "atalaya_labels_total",
            "True labels received for predictions, by whether the prediction was correct.",
            ["model", "correct"],
            registry=registry,
        )
        # Every worker sets these to the same values.
        self.live_accuracy = Gauge(
            "atalaya_live_accuracy",
            "Share of correct predictions among the labelled ones of the last 30 days.",
            ["model"],
            registry=registry,
            multiprocess_mode="livemostrecent",
        )
        self.live_accuracy_lower = Gauge(
            "atalaya_live_accuracy_lower",
            "Lower bound of the 95 % confidence interval of atalaya_live_accuracy.",
            ["model"],
            registry=registry,
            multiprocess_mode="livemostrecent",
        )
        self.estimated_accuracy = Gauge(
            "atalaya_estimated_accuracy",
            "Accuracy of the predictions of the last 30 days as their calibrated confidence estimates it.",
            ["model"],
            registry=registry,
            multiprocess_mode="livemostrecent",
        )
