"""The cost of tracing one request on the event loop: a request that is not sampled, and one that is.

The collector accepts connections and never responds, so that no other process uses the processor.
"""

from __future__ import annotations

import socket
import statistics
import time
from collections.abc import Callable
from functools import partial

from bench.targets import Target, format_targets
from monitoring.tracing.otlp import MAX_QUEUED, OtlpExporter
from monitoring.tracing.tracer import FinishedRequest, SpanExporter, Tracer

STAGES = ("queue", "decode", "infer", "commit")
PREDICTION = FinishedRequest("POST", "/v1/predictions", 200, "https", "0123456789abcdef")
UNSAMPLED_HEADER = f"00-{'1' * 32}-{'2' * 16}-00"


def measure_median_us(call: Callable[[], None], calls: int) -> float:
    durations = []
    for _ in range(calls):
        started = time.perf_counter()
        call()
        durations.append(time.perf_counter() - started)
    return statistics.median(durations) * 1e6


def trace_request(tracer: Tracer, traceparent: str | None) -> None:
    """Do everything that tracing does for one prediction."""
    trace = tracer.begin(traceparent)
    if trace is None:
        return
    trace.describe_context()
    if trace.context.sampled:
        for stage in STAGES:
            trace.add_stage(stage, 0.001)
        tracer.finish(trace, PREDICTION)


def measure(exporter: SpanExporter) -> list[Target]:
    traced, untraced = Tracer(exporter, 1.0), Tracer(exporter, 0.0)
    fits_the_queue = MAX_QUEUED // (len(STAGES) + 1)
    cases = (
        ("not sampled", untraced, None, 10_000, 20),
        ("parent not sampled", untraced, UNSAMPLED_HEADER, 10_000, 20),
        ("sampled, five spans", traced, None, fits_the_queue, 250),
    )
    return [
        Target(name, measure_median_us(partial(trace_request, tracer, header), calls), limit_us, "us")
        for name, tracer, header, calls, limit_us in cases
    ]


def main() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        exporter = OtlpExporter(endpoint, {}, {"service.name": "bench"}, lambda _: None)
        print("tracing a request, median")
        print(*format_targets(measure(exporter)), sep="\n")
        exporter.close()


if __name__ == "__main__":
    main()
