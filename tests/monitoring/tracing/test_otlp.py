"""Exporting spans to a collector, including one that is unavailable."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from structlog.testing import capture_logs

from monitoring.tracing.context import continue_trace, start_trace
from monitoring.tracing.otlp import MAX_QUEUED, OtlpExporter
from monitoring.tracing.tracer import FinishedRequest, RequestTrace
from tests.support.polling import wait_until
from tests.support.servers.collector import Collector, read_attributes, running_collector

PREDICTION = FinishedRequest("POST", "/v1/predictions", 200, "https", "r-1")
FAILURE = FinishedRequest("POST", "/v1/predictions", 503, "https", "r-2")
STAGES = ("queue", "decode", "infer", "commit")
SPANS = 1 + len(STAGES)  # of a request


@pytest.fixture
def collector() -> Iterator[Collector]:
    with running_collector() as server:
        yield server


@pytest.fixture(autouse=True)
def ended_threads() -> Iterator[None]:
    """Wait for the sender's thread to end: it could log an outage during the next test."""
    yield
    names = ("OtelBatch", "otlp-request")
    wait_until(lambda: not any(thread.name.startswith(names) for thread in threading.enumerate()))


class Dropped:
    """Counts spans that were rejected in the test's thread, and those that the sender's thread could not send."""

    def __init__(self) -> None:
        self.rejected = self.unsent = 0
        self._thread = threading.get_ident()

    def __call__(self, count: int) -> None:
        if threading.get_ident() == self._thread:
            self.rejected += count
        else:
            self.unsent += count


def open_exporter(endpoint: str, dropped: Dropped) -> OtlpExporter:
    return OtlpExporter(endpoint, {"authorization": "Bearer t"}, {"service.name": "atalaya"}, dropped)


def make_trace(traceparent: str | None = None) -> RequestTrace:
    context = start_trace() if traceparent is None else continue_trace(traceparent)
    assert context is not None
    trace = RequestTrace(context)
    for stage in STAGES:
        trace.add_stage(stage, 0.001)
    return trace


def test_spans_of_a_request(collector: Collector) -> None:
    """A request is a server span with the ids of its log line, and each stage a child whose times lie within it."""
    dropped = Dropped()
    exporter = open_exporter(collector.endpoint, dropped)
    before, trace = time.time_ns(), make_trace()
    exporter.export(trace, PREDICTION)
    exporter.close()
    wait_until(collector.spans)  # closing waits no more than two seconds
    *children, server = collector.spans()
    assert server.name == "POST /v1/predictions"
    assert (server.trace_id.hex(), server.span_id.hex()) == (trace.context.trace_id, trace.context.span_id)
    assert (server.kind, server.parent_span_id, server.status.code) == (2, b"", 0)
    assert read_attributes(server) == {
        "http.request.method": "POST",
        "http.route": "/v1/predictions",
        "http.response.status_code": 200,
        "url.scheme": "https",
        "atalaya.request_id": "r-1",
    }
    assert [child.name for child in children] == list(STAGES)
    for child in children:
        assert (child.trace_id, child.parent_span_id) == (server.trace_id, server.span_id)
        assert child.end_time_unix_nano - child.start_time_unix_nano == pytest.approx(1e6, rel=0.01)
        assert child.end_time_unix_nano <= server.end_time_unix_nano
    assert before <= server.end_time_unix_nano <= time.time_ns()
    assert collector.resource() == {"service.name": "atalaya"}
    assert collector.headers[0]["authorization"] == "Bearer t"
    assert (dropped.rejected, dropped.unsent) == (0, 0)


def test_span_of_a_callers_trace(collector: Collector) -> None:
    """A request with a parent is a child of it in the same trace, and a failed one has an error status."""
    exporter = open_exporter(collector.endpoint, Dropped())
    trace_id, parent_id = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    exporter.export(make_trace(f"00-{trace_id}-{parent_id}-01"), FAILURE)
    exporter.close()
    wait_until(collector.spans)
    server = collector.spans()[-1]
    assert (server.trace_id.hex(), server.parent_span_id.hex()) == (trace_id, parent_id)
    assert server.status.code == 2
    assert read_attributes(server)["error.type"] == "503"


def test_full_queue(collector: Collector) -> None:
    """A trace that does not fit into the queue is dropped and counted with all its spans, and no other is lost."""
    dropped = Dropped()
    exporter = open_exporter(collector.endpoint, dropped)
    collector.status = 503
    exported = 0
    while not dropped.rejected:
        exporter.export(make_trace(), PREDICTION)
        exported += SPANS
        assert exported < 100 * MAX_QUEUED
    collector.status = 200
    exporter.close()
    assert exported > MAX_QUEUED
    assert dropped.rejected == SPANS
    wait_until(lambda: len(collector.spans()) + dropped.unsent == exported - SPANS)


@pytest.mark.parametrize("status", [301, 308, 400])
def test_rejected_spans(collector: Collector, status: int) -> None:
    """Spans that the collector redirects or rejects are dropped and counted, and the outage is logged."""
    dropped = Dropped()
    exporter = open_exporter(collector.endpoint, dropped)
    collector.status = status
    with capture_logs() as logs:
        exporter.export(make_trace(), PREDICTION)
        exporter.close()
        wait_until(lambda: logs)
    assert [line["event"] for line in logs] == ["traces_not_sent"]
    assert (dropped.rejected, dropped.unsent) == (0, SPANS)


@pytest.mark.parametrize("hangs", [False, True])
def test_unavailable_collector(hangs: bool) -> None:
    """A collector that refuses connections or never responds delays no request, and closing only briefly."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        if hangs:
            server.listen()
        attempts = 1
        while measure_close(f"http://127.0.0.1:{port}") > 5:  # the time limit of a request to the collector
            attempts += 1  # a pause of this process can delay one attempt, but hardly each of them
            assert attempts <= 3


def test_a_collector_that_sends_its_response_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A response that arrives byte by byte ends no request in time: its spans and the later ones are dropped."""
    monkeypatch.setattr("monitoring.tracing.otlp._RESPONSE_LIMIT_S", 0.2)
    dropped, ended = Dropped(), threading.Event()

    def respond(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\n")
            while not ended.wait(0.01):
                connection.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool, capture_logs() as logs:
        pool.submit(respond, server)
        exporter = open_exporter(f"http://127.0.0.1:{server.getsockname()[1]}", dropped)
        for batch in (1, 2):
            exporter.export(make_trace(), PREDICTION)
            wait_until(lambda: dropped.unsent == batch * SPANS)  # noqa: B023  (called in this iteration)
        ended.set()
    exporter.close()
    assert [line["event"] for line in logs] == ["traces_not_sent"]


def measure_close(endpoint: str) -> float:
    """Return how many seconds an exporter takes to close that cannot send its spans."""
    dropped = Dropped()
    exporter = open_exporter(endpoint, dropped)
    exporter.export(make_trace(), PREDICTION)
    started = time.monotonic()
    exporter.close()
    duration_s = time.monotonic() - started
    wait_until(lambda: dropped.unsent == SPANS)
    assert dropped.rejected == 0  # nothing was sent in this thread
    return duration_s
