"""How much callers use, and what it costs."""

from __future__ import annotations

from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge

from monitoring.metrics.bounded import NameLimit
from monitoring.metrics.groups.base import MetricGroup

PIXELS_IN_MEGAPIXEL = 1_000_000


class UsageMetrics(MetricGroup):
    """`callers` chooses the callers that have series of their own: none, unless it is replaced."""

    def __init__(self, registry: CollectorRegistry, shown: CollectorRegistry) -> None:
        super().__init__(registry, shown)
        self.callers = NameLimit(0)
        predictions = Counter(
            "atalaya_usage_predictions_total",
            "Predictions charged to a caller, as in GET /v1/usage. The first MONITORING__USAGE_CALLERS callers have "
            "series of their own, all others share `other`.",
            ["caller"],
            registry=registry,
        )
        megapixels = Counter(
            "atalaya_usage_megapixels_total",
            "Millions of pixels charged to a caller.",
            ["caller"],
            registry=registry,
        )
        self.quota_used_ratio = Gauge(
            "atalaya_quota_used_ratio",
            "The largest share of a monthly quota that its owner has used, 0 to 1; 0 without quotas.",
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.month_cost = Gauge(
            "atalaya_cost_month",
            "Cost of this calendar month (UTC) so far, in COST__CURRENCY, of all worker processes together.",
            ["resource"],
            registry=registry,
            multiprocess_mode="livemostrecent",
        )
        self.month_cost_predictions = Gauge(
            "atalaya_cost_month_predictions",
            "Predictions of this month that the cost covers.",
            registry=registry,
            multiprocess_mode="livemostrecent",
        )
        self.month_sleep_saving = Gauge(
            "atalaya_cost_month_sleep_saving",
            "Part of the cost that sleeping in hours without requests would have saved; NaN without a ledger.",
            registry=registry,
            multiprocess_mode="livemostrecent",
        )
        self._get_usage = cache(lambda caller: (predictions.labels(caller), megapixels.labels(caller)))

    def count_usage(self, caller: str, pixels: int) -> None:
        """Count a prediction of an image with `pixels` pixels."""
        predictions, megapixels = self._get_usage(self.callers.find(caller))
        predictions.inc()
        megapixels.inc(pixels / PIXELS_IN_MEGAPIXEL)
