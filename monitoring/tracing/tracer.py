"""Decides which requests are traced, and collects their stages until they end."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Protocol

from msgspec import Struct, field
from msgspec.structs import replace

from monitoring.tracing.context import TraceContext, continue_trace, start_trace

# Callers choose the header: this limits the cost of a caller that requests a trace every time.
MAX_REQUESTED_PER_S = 20


class Stage(Struct, frozen=True):
    """A stage of a request. Both times are those of `time.perf_counter`."""

    name: str
    started: float
    ended: float


class RequestTrace(Struct):
    """A request that belongs to a trace, and its stages so far."""

    context: TraceContext
    started: float = field(default_factory=time.perf_counter)
    stages: list[Stage] = field(default_factory=list)

    def describe_context(self) -> dict[str, str]:
        """Return the fields of the request's log lines, named as OpenTelemetry's data model for logs names them."""
        context = self.context
        flags = "01" if context.sampled else "00"
        return {"trace_id": context.trace_id, "span_id": context.span_id, "trace_flags": flags}

    def add_stage(self, name: str, seconds: float) -> None:
        """Add a stage that took `seconds` and ends now. Thread-safe."""
        now = time.perf_counter()
        self.stages.append(Stage(name, now - seconds, now))


class FinishedRequest(Struct, frozen=True):
    """The attributes of a request's span, by OpenTelemetry's semantic conventions for HTTP servers."""

    method: str
    route: str
    status: int
    scheme: str
    request_id: str


class SpanExporter(Protocol):
    """Exports the spans of sampled requests. Neither method raises, and `export` does not wait for the network."""

    def export(self, trace: RequestTrace, request: FinishedRequest) -> None:
        """Export a request that ends now."""
        ...

    def close(self) -> None:
        """Send queued spans, for at most two seconds."""
        ...


class Tracer:
    """Reads the trace ids of requests, samples some requests, and exports their spans.

    Samples all requests whose parent is sampled, at most MAX_REQUESTED_PER_S per second, and `share`, in [0, 1], of
    those without a parent. Without an `exporter`, samples none and only reads the ids. `clock` returns seconds.
    """

    def __init__(
        self, exporter: SpanExporter | None, share: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._exporter = exporter
        self._share = share if exporter is not None else 0.0
        self._clock = clock
        self._second = 0
        self._requested = 0

    def begin(self, traceparent: str | None) -> RequestTrace | None:
        """Return the trace of a request that begins now, or None if it belongs to none."""
        if traceparent is not None and (context := continue_trace(traceparent)) is not None:
            sampled = context.sampled and self._exporter is not None and self._admit_requested()
            return RequestTrace(replace(context, sampled=sampled))
        if random.random() < self._share:  # noqa: S311  (no secret)
            return RequestTrace(start_trace())
        return None

    def finish(self, trace: RequestTrace, request: FinishedRequest) -> None:
        """Export the trace of a request that ends now, if it is sampled."""
        if self._exporter is not None and trace.context.sampled:
            self._exporter.export(trace, request)

    def close(self) -> None:
        if self._exporter is not None:
            self._exporter.close()

    def _admit_requested(self) -> bool:
        second = int(self._clock())
        if second != self._second:
            self._second, self._requested = second, 0
        self._requested += 1
        return self._requested <= MAX_REQUESTED_PER_S
