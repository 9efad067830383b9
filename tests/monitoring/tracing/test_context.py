"""Reading `traceparent` and sampling requests."""

from __future__ import annotations

import pytest

from monitoring.tracing.context import continue_trace
from monitoring.tracing.tracer import MAX_REQUESTED_PER_S, FinishedRequest, RequestTrace, Tracer

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED, NOT_SAMPLED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"


class Exporter:
    """Keeps the exported traces."""

    def __init__(self) -> None:
        self.exported: list[RequestTrace] = []

    def export(self, trace: RequestTrace, request: FinishedRequest) -> None:
        self.exported.append(trace)

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("header", "sampled"),
    [(SAMPLED, True), (NOT_SAMPLED, False), (f"00-{TRACE}-{PARENT}-03", True), (f"cc-{TRACE}-{PARENT}-01-later", True)],
)
def test_valid_headers(header: str, sampled: bool) -> None:
    """A request continues the trace of its parent, with a span id of its own, even for later versions of the header."""
    context = continue_trace(header)
    assert context is not None
    assert (context.trace_id, context.parent_id, context.sampled) == (TRACE, PARENT, sampled)
    assert len(context.span_id) == 16
    assert context.span_id != PARENT


@pytest.mark.parametrize(
    "header",
    [
        "",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01-more",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{PARENT}",
        f"00-{TRACE}-{PARENT}-1",
        f"00-{TRACE}-{PARENT}-01\n",
    ],
)
def test_invalid_headers(header: str) -> None:
    """A header that W3C Trace Context calls invalid is ignored."""
    assert continue_trace(header) is None
    assert Tracer(Exporter(), 0).begin(header) is None


def test_parent_decides() -> None:
    """The parent decides whether a request is sampled, whatever the share."""
    for share in (0.0, 1.0):
        traces = [Tracer(Exporter(), share).begin(header) for header in (SAMPLED, NOT_SAMPLED)]
        assert [trace is not None and trace.context.sampled for trace in traces] == [True, False]


def test_share_of_requests_without_a_parent() -> None:
    """The configured share of requests without a parent is sampled."""
    tracer = Tracer(Exporter(), 0.01)
    sampled = sum(tracer.begin(None) is not None for _ in range(100_000))
    assert 800 < sampled < 1200  # six standard deviations
    assert Tracer(Exporter(), 0).begin(None) is None


def test_callers_cannot_have_everything_traced() -> None:
    """Traces that callers request are limited per second; beyond the limit, only the log has the caller's trace id."""
    now = 100.0
    tracer = Tracer(Exporter(), 0, clock=lambda: now)
    traces = [tracer.begin(SAMPLED) for _ in range(MAX_REQUESTED_PER_S + 5)]
    assert sum(trace is not None and trace.context.sampled for trace in traces) == MAX_REQUESTED_PER_S
    assert traces[-1] is not None
    assert traces[-1].describe_context()["trace_id"] == TRACE
    now = 101.0
    again = tracer.begin(SAMPLED)
    assert again is not None
    assert again.context.sampled


def test_without_an_exporter() -> None:
    """Without an exporter nothing is sampled, but the log still contains the ids of the caller's trace."""
    tracer = Tracer(None, 1.0)
    assert tracer.begin(None) is None
    trace = tracer.begin(SAMPLED)
    assert trace is not None
    assert trace.describe_context() == {
        "trace_id": TRACE,
        "span_id": trace.context.span_id,
        "trace_flags": "00",
    }


def test_only_sampled_requests_are_exported() -> None:
    """Finishing a request exports its trace only if it is sampled."""
    exporter = Exporter()
    tracer = Tracer(exporter, 0)
    request = FinishedRequest("POST", "/v1/predictions", 200, "http", "r-1")
    for header in (SAMPLED, NOT_SAMPLED):
        trace = tracer.begin(header)
        assert trace is not None
        tracer.finish(trace, request)
    assert [trace.context.sampled for trace in exporter.exported] == [True]
