"""Metrics, logs and readiness of the inference engines."""

from __future__ import annotations

import math
import threading
from collections import defaultdict
from typing import TYPE_CHECKING

import structlog

from model.backends.base import Backend
from model.backends.batching import BatchingBackend
from model.backends.oip.address import SCHEMES
from model.backends.oip.events import EngineEvent, EventKind
from monitoring.metrics import Metrics

if TYPE_CHECKING:
    from model.backends.oip.backend import OipBackend

log = structlog.get_logger("atalaya.engines")


def find_engine_problem(backend: Backend) -> str | None:
    """Return the problem that readiness shows for the engines, or None. Raises EngineUnavailable."""
    engines = _find_engines(backend)
    return None if engines is None else engines.problem


def observe_engines(backend: Backend, metrics: Metrics) -> None:
    """Count and log the events of the engines from now on, if the back end has any."""
    engines = _find_engines(backend)
    if engines is not None:
        engines.subscribe(EngineReports(metrics).report)


def _find_engines(backend: Backend) -> OipBackend | None:
    """Return the part of the back end that calls engines; None if it has none."""
    if backend.info.backend not in SCHEMES:
        return None
    from model.backends.oip.backend import OipBackend  # only gateways with engines need it

    inner = backend.inner if isinstance(backend, BatchingBackend) else backend
    return inner if isinstance(inner, OipBackend) else None


class EngineReports:
    """Counts and logs the events of engines. Thread-safe."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._lock = threading.Lock()
        self._up = defaultdict[str, dict[str, int]](dict)

    def report(self, event: EngineEvent) -> None:
        metrics, endpoint = self._metrics, self._metrics.engine_endpoints.find(event.endpoint)
        match event.kind:
            case EventKind.SENT:
                metrics.engine_in_flight.labels(endpoint).inc()
            case EventKind.DONE:
                metrics.engine_in_flight.labels(endpoint).dec()
                metrics.engine_seconds.labels(endpoint).observe(event.seconds)
            case EventKind.RETRIED:
                metrics.engine_retries.inc()
            case EventKind.FELL_BACK:
                metrics.engine_fallbacks.inc()
            case EventKind.FAILED:
                metrics.engine_failures.labels(endpoint).inc()
                log.error("engine_failed", endpoint=event.endpoint, reason=event.detail)
            case EventKind.EJECTED:
                self._show_state(endpoint, event.endpoint, 0)
                metrics.engine_ejections.labels(endpoint).inc()
                log.warning("engine_ejected", endpoint=event.endpoint, reason=event.detail)
            case EventKind.REMOVED:
                self._show_state(endpoint, event.endpoint, None)
                log.info("engine_removed", endpoint=event.endpoint)
            case EventKind.ADMITTED:
                self._show_state(endpoint, event.endpoint, 1)
                metrics.engine_ejections.labels(endpoint)
                log.info("engine_admitted", endpoint=event.endpoint, missing_outputs=event.detail or None)

    def _show_state(self, label: str, endpoint: str, value: int | None) -> None:
        """Show the lowest value of the endpoints that share a label. `value` is None for an endpoint no longer used."""
        with self._lock:
            values = self._up[label]
            values.pop(endpoint, None)
            if value is not None:
                values[endpoint] = value
            self._metrics.engine_up.labels(label).set(min(values.values(), default=math.nan))
