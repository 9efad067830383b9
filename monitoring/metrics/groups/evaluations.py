"""The last evaluation of the served model on the validation set, by `atalaya evaluate --served` on any machine.

The metrics are absent until there is an evaluation.
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import GaugeMetricFamily

from monitoring.metrics.groups.base import MetricGroup
from monitoring.metrics.scraped import ScrapedMetric, Values
from monitoring.quality.evaluations import EvaluationRecord


class EvaluationMetrics(MetricGroup):
    """`evaluation` is the newest one that this process has read; `has_evaluation_loss` is true while a loss lasts."""

    def __init__(self, registry: CollectorRegistry, shown: CollectorRegistry) -> None:
        super().__init__(registry, shown)
        self.evaluation: EvaluationRecord | None = None
        self.has_evaluation_loss = False

        def show(name: str, documentation: str, read: Callable[[EvaluationRecord], float | None]) -> None:
            ScrapedMetric(
                GaugeMetricFamily,
                f"atalaya_evaluation_{name}",
                documentation,
                ["model"],
                registry=shown,
                read=lambda: self._read(read),
            )

        show("timestamp_seconds", "When the served model was last evaluated.", lambda each: each.at)
        show("images", "Images of the validation set.", lambda each: each.n)
        show("accuracy", "Share of the images that were predicted correctly.", lambda each: each.accuracy)
        show(
            "accuracy_lower",
            "Lower bound of the 95 % confidence interval of atalaya_evaluation_accuracy.",
            lambda each: each.lower,
        )
        show("macro_f1", "Mean F1 score of the classes.", lambda each: each.macro_f1)
        show("ece", "Expected calibration error of the confidence.", lambda each: each.ece)
        show(
            "lost_images",
            "Images that are no longer predicted correctly, compared with the reference. Absent without one.",
            lambda each: each.comparison.lost if each.comparison else None,
        )
        show(
            "gained_images",
            "Images that are now predicted correctly, compared with the reference. Absent without one.",
            lambda each: each.comparison.gained if each.comparison else None,
        )
        show(
            "loss",
            "1 if the model is significantly worse than the reference, else 0.",
            lambda _: self.has_evaluation_loss,
        )

    def _read(self, read: Callable[[EvaluationRecord], float | None]) -> Values:
        value = read(self.evaluation) if self.evaluation else None
        return {} if value is None or self.evaluation is None else {(self.evaluation.full_name,): value}
