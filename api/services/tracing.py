"""The tracer of this process: where spans go, and how many requests are sampled."""

from __future__ import annotations

from importlib.metadata import version

from api.settings import Settings
from api.settings.urls import parse_headers
from monitoring.metrics import Metrics
from monitoring.tracing.tracer import SpanExporter, Tracer


def open_tracer(settings: Settings, metrics: Metrics) -> Tracer:
    """Return a tracer that exports to OTEL_EXPORTER_OTLP_ENDPOINT; without it, one that only reads `traceparent`."""
    return Tracer(_open_exporter(settings, metrics), settings.otel_traces_sampler_arg)


def _open_exporter(settings: Settings, metrics: Metrics) -> SpanExporter | None:
    if settings.otel_exporter_otlp_endpoint is None:
        return None
    from monitoring.tracing.otlp import OtlpExporter  # takes 3 MB

    headers = settings.otel_exporter_otlp_headers
    resource = {
        "service.name": settings.otel_service_name,
        "service.version": version("atalaya"),
        "deployment.environment.name": settings.environment,
    }
    return OtlpExporter(
        settings.otel_exporter_otlp_endpoint,
        parse_headers(headers.get_secret_value()) if headers is not None else {},
        resource,
        metrics.spans_dropped.inc,
    )
