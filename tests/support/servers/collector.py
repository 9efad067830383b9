"""An OpenTelemetry collector for tests: an HTTP server on loopback that reads OTLP."""

from __future__ import annotations

import gzip
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.support.servers.running import running


class Collector(ThreadingHTTPServer):
    """Stores the requests and their headers, and responds with `status`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status = 200
        self.requests: list[ExportTraceServiceRequest] = []
        self.headers: list[dict[str, str]] = []

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def spans(self) -> list[Span]:
        return [
            span
            for request in list(self.requests)
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def resource(self) -> dict[str, str]:
        """The attributes of the resource of the first request."""
        attributes = self.requests[0].resource_spans[0].resource.attributes
        return {attribute.key: attribute.value.string_value for attribute in attributes}


def read_attributes(span: Span) -> dict[str, str | int]:
    return {attribute.key: attribute.value.string_value or attribute.value.int_value for attribute in span.attributes}


def running_collector() -> AbstractContextManager[Collector]:
    return running(Collector())


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        # Read once: a test may change the status meanwhile, and what is acknowledged must have been stored.
        status = self.server.status if self.path == "/v1/traces" else 404
        if status == 200:
            assert self.headers["Content-Encoding"] == "gzip"
            self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
            self.server.requests.append(ExportTraceServiceRequest.FromString(gzip.decompress(body)))
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class names it so
        pass
