"""Predictions: how long they take, and what the model predicts."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

from monitoring.metrics.bounded import NameLimit
from monitoring.metrics.groups.base import MetricGroup, create_series

MAX_MODELS = 20
# As in model.confidence.abstention, and the stages of every prediction (not `explain`). This package imports no model.
ABSTENTION_REASONS = ("not_an_aerial_image", "low_confidence")
STAGES = ("decode", "queue", "infer", "commit")
_STAGE_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_CONFIDENCE_BUCKETS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)


class PredictionMetrics(MetricGroup):
    """`models` chooses the models whose predictions have series of their own."""

    def __init__(self, registry: CollectorRegistry, shown: CollectorRegistry) -> None:
        super().__init__(registry, shown)
        self.models = NameLimit(MAX_MODELS)
        self.stage_seconds = Histogram(
            "atalaya_prediction_stage_seconds",
            "Time that a prediction spends in each stage.",
            ["stage"],
            buckets=_STAGE_BUCKETS,
            registry=registry,
        )
        create_series(self.stage_seconds, *zip(STAGES))
        self.predictions = Counter(
            "atalaya_predictions_total",
            f"Predictions returned. Models after the first {MAX_MODELS} since the start share `other`.",
            ["model", "label"],
            registry=registry,
        )
        self.confidence = Histogram(
            "atalaya_prediction_confidence",
            "Calibrated probability of the predicted class.",
            buckets=_CONFIDENCE_BUCKETS,
            registry=registry,
        )
        self.abstentions = Counter(
            "atalaya_abstentions_total",
            "Predictions on which the model abstains, whether they are marked or rejected.",
            ["reason"],
            registry=registry,
        )
        create_series(self.abstentions, *zip(ABSTENTION_REASONS))

    def find_predictions(self, model: str, label: str) -> Counter:
        """Return the counter of a model's predictions of a label."""
        return self.predictions.labels(self.models.find(model), label)
