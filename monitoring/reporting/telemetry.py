"""The bundle of what a process uses to report about itself: metrics, error reports and traces."""

from __future__ import annotations

from threading import Thread

from msgspec import Struct

from monitoring.metrics import Metrics
from monitoring.reporting.replaceable import ReplaceableReporter
from monitoring.tracing.tracer import Tracer


class Telemetry(Struct, frozen=True):
    metrics: Metrics
    reporter: ReplaceableReporter
    tracer: Tracer

    def close(self) -> None:
        """Send what is queued, for two seconds at most."""
        closing = Thread(target=self.reporter.close, daemon=True)
        closing.start()
        self.tracer.close()
        closing.join()
