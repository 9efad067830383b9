"""Exports spans to an OpenTelemetry collector: OTLP over HTTP, with OpenTelemetry's SDK.

The spans are created when the request has ended, from the times of its stages: spans that are opened and closed while
it runs would cost each request several times as much (ADR 0046).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from threading import Lock, Thread

import requests
import structlog
from opentelemetry import trace as api
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from monitoring.tracing.context import TraceContext
from monitoring.tracing.tracer import FinishedRequest, RequestTrace

MAX_QUEUED = 2048  # spans
_BATCH = 512
_SEND_INTERVAL_MS = 2000
_SEND_LIMIT_S = 5.0
_RESPONSE_LIMIT_S = 10.0  # for all of a request; the limit above starts again with each byte of the response
_CLOSE_LIMIT_S = 2.0
_SERVER_ERROR = 500
_REDIRECTS = range(300, 400)

log = structlog.get_logger("atalaya.tracing")


class OtlpExporter:
    """Sends spans to `endpoint`, the collector's URL without /v1/traces, from a thread of its own.

    `on_dropped(count)` is called for spans that are not sent because the queue is full or the collector is unavailable.
    Create it after the fork: threads do not survive one.
    """

    def __init__(
        self,
        endpoint: str,
        headers: Mapping[str, str],
        resource: Mapping[str, str],
        on_dropped: Callable[[int], object],
    ) -> None:
        # The sender reports outages itself, once each.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        self._on_dropped = on_dropped
        self._sender = _Sender(
            OTLPSpanExporter(
                endpoint.rstrip("/") + "/v1/traces",
                headers=dict(headers),
                timeout=_SEND_LIMIT_S,
                compression=Compression.Gzip,
                session=_open_session(),
            ),
            on_dropped,
        )
        self._ids = _GivenIds()
        self._processor = BatchSpanProcessor(
            self._sender,
            max_queue_size=MAX_QUEUED,
            schedule_delay_millis=_SEND_INTERVAL_MS,
            max_export_batch_size=_BATCH,
            export_timeout_millis=_SEND_LIMIT_S * 1000,
        )
        provider = TracerProvider(ALWAYS_ON, Resource(dict(resource)), shutdown_on_exit=False, id_generator=self._ids)
        provider.add_span_processor(self._processor)
        self._tracer = provider.get_tracer("atalaya")

    def export(self, trace: RequestTrace, request: FinishedRequest) -> None:
        """Queue the spans of a request that ends now. Call it in the event loop's thread."""
        if not self._sender.reserve(len(trace.stages) + 1, MAX_QUEUED):
            self._on_dropped(len(trace.stages) + 1)
            return
        # `perf_counter` has no fixed origin, so its times are converted to those of the wall clock.
        ended = time.perf_counter()
        origin_ns = time.time_ns() - int(ended * 1e9)
        span = self._start_request(trace, request, origin_ns)
        parent = api.set_span_in_context(span, Context())
        for stage in trace.stages:
            child = self._tracer.start_span(stage.name, parent, start_time=origin_ns + int(stage.started * 1e9))
            child.end(origin_ns + int(stage.ended * 1e9))
        span.end(origin_ns + int(ended * 1e9))

    def close(self) -> None:
        """Send what is queued, for at most two seconds."""
        closing = Thread(target=self._processor.shutdown, daemon=True)
        closing.start()
        closing.join(_CLOSE_LIMIT_S)

    def _start_request(self, trace: RequestTrace, request: FinishedRequest, origin_ns: int) -> api.Span:
        context = trace.context
        self._ids.give(context)
        span = self._tracer.start_span(
            f"{request.method} {request.route}",
            _make_parent(context),
            api.SpanKind.SERVER,
            {
                "http.request.method": request.method,
                "http.route": request.route,
                "http.response.status_code": request.status,
                "url.scheme": request.scheme,
                "atalaya.request_id": request.request_id,
            },
            start_time=origin_ns + int(trace.started * 1e9),
        )
        if request.status >= _SERVER_ERROR:
            span.set_attribute("error.type", str(request.status))
            span.set_status(api.StatusCode.ERROR)
        return span


class _GivenIds(RandomIdGenerator):
    """Gives the next span the ids that are in the log lines of its request."""

    def __init__(self) -> None:
        self._given: TraceContext | None = None

    def give(self, context: TraceContext) -> None:
        self._given = context

    def generate_trace_id(self) -> int:
        """Called first, and only for a span without a parent."""
        return super().generate_trace_id() if self._given is None else int(self._given.trace_id, 16)

    def generate_span_id(self) -> int:
        given, self._given = self._given, None
        return super().generate_span_id() if given is None else int(given.span_id, 16)


def _open_session() -> requests.Session:
    """Open a session in which a redirect is an error: the SDK does not follow it, but would count its spans as sent."""
    session = requests.Session()
    session.hooks["response"].append(_reject_redirect)
    return session


def _reject_redirect(response: requests.Response, *_: object, **__: object) -> None:
    if response.status_code in _REDIRECTS:
        response.close()
        raise requests.HTTPError(f"the collector redirects with status {response.status_code}")


def _make_parent(context: TraceContext) -> Context:
    if not context.parent_id:
        return Context()
    parent = api.SpanContext(
        int(context.trace_id, 16), int(context.parent_id, 16), True, api.TraceFlags(api.TraceFlags.SAMPLED)
    )
    return api.set_span_in_context(api.NonRecordingSpan(parent), Context())


class _Sender(SpanExporter):
    """Sends batches with `exporter`, counts the spans that are not sent, and logs each outage once.

    Each batch is sent in its own thread, which is abandoned if it takes too long: the library `requests` limits neither
    name resolution nor the duration of a whole request. Until that thread ends, further batches are dropped.
    """

    def __init__(self, exporter: SpanExporter, on_dropped: Callable[[int], object]) -> None:
        self._exporter = exporter
        self._on_dropped = on_dropped
        self._lock = Lock()
        self._queued = 0
        self._failing = False
        self._sending: Thread | None = None

    def reserve(self, count: int, limit: int) -> bool:
        """Return whether `count` more spans may be queued."""
        with self._lock:
            if self._queued + count > limit:
                return False
            self._queued += count
            return True

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        failed = not self._send(spans)
        with self._lock:
            self._queued -= len(spans)
        if failed:
            self._on_dropped(len(spans))
        if failed is not self._failing:
            self._failing = failed
            if failed:
                log.warning("traces_not_sent", policy="spans are dropped and counted until the collector responds")
            else:
                log.info("traces_sent_again")
        return SpanExportResult.FAILURE if failed else SpanExportResult.SUCCESS

    def _send(self, spans: Sequence[ReadableSpan]) -> bool:
        """Return whether the collector has accepted the spans in time."""
        if self._sending is not None and self._sending.is_alive():
            return False
        results = list[SpanExportResult]()
        # A daemon, because a collector that does not respond must not prevent the process from exiting.
        self._sending = Thread(
            target=lambda: results.append(self._exporter.export(spans)), name="otlp-request", daemon=True
        )
        self._sending.start()
        self._sending.join(_RESPONSE_LIMIT_S)
        return results == [SpanExportResult.SUCCESS]

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)
