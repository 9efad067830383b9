"""The bundle of what a process uses to report about itself: metrics, error reports and traces."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Thread

from monitoring.metrics import Metrics
from monitoring.reporting.replaceable import ReplaceableReporter
from monitoring.tracing.tracer import Tracer


@dataclass(frozen=True, slots=True)
class Telemetry:
    metrics: Metrics
    reporter: ReplaceableReporter
    tracer: Tracer

    def close(self) -> None:
        """Send what is queued, for two seconds at most."""
        closing = Thread(target=self.reporter.close, daemon=True)
        closing.start()
        self.tracer.close()
        closing.join()
