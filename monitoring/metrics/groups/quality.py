"""How good the models are on live traffic, and whether it differs from the images that they were measured on."""

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
            "Accuracy of the predictions of the last 30 days, estimated from their calibrated confidence.",
            ["model"],
            registry=registry,
            multiprocess_mode="livemostrecent",
        )
        self.drift_callers = _create_drift_gauge(
            "atalaya_drift_callers", "Callers whose predictions differ from the reference.", registry
        )
        self.drift_overall = _create_drift_gauge(
            "atalaya_drift_overall",
            "1 while the predictions of all callers together differ from the reference, else 0.",
            registry,
        )
        self.drift_recent = _create_drift_gauge(
            "atalaya_drift_recent", "Mean of about the last 100 predictions of all callers.", registry
        )
        self.drift_reference = _create_drift_gauge("atalaya_drift_reference", "Mean in the reference.", registry)


def _create_drift_gauge(name: str, documentation: str, registry: CollectorRegistry) -> Gauge:
    return Gauge(name, documentation, ["model", "metric"], registry=registry, multiprocess_mode="livemostrecent")
