"""What the tests of prepared copies read."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from model.backends.base import Origin
from model.serving.service import PredictionService

MEMORY = 1 << 30


def count_builds(shown: CollectorRegistry, outcome: str = "done") -> float | None:
    return shown.get_sample_value("atalaya_preparations_total", {"outcome": outcome})


def serves_a_copy(service: PredictionService) -> bool:
    weights = service.backend.weights
    return weights is not None and weights.origin is Origin.PREPARED
