"""Predictions: how long they take, and what the model says."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

from monitoring.metrics.groups.base import MetricGroup

_STAGE_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_CONFIDENCE_BUCKETS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)


class PredictionMetrics(MetricGroup):
    def __init__(self, registry: CollectorRegistry, shown: CollectorRegistry) -> None:
        super().__init__(registry, shown)
        self.stage_seconds = Histogram(
            "atalaya_prediction_stage_seconds",
            "Time that a prediction spends in each stage.",
            ["stage"],
            buckets=_STAGE_BUCKETS,
            registry=registry,
        )
        self.predictions = Counter(
            "atalaya_predictions_total", "Predictions returned.", ["model", "label"], registry=registry
        )
        self.confidence = Histogram(
            "atalaya_prediction_confidence",
            "Calibrated probability of the predicted class.",
            buckets=_CONFIDENCE_BUCKETS,
            registry=registry,
        )
        self.abstentions = Counter(
            "atalaya_abstentions_total",
            "Predictions of which the model abstains, marked or refused.",
            ["reason"],
            registry=registry,
        )
