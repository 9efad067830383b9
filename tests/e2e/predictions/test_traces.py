"""Traces that a running gateway with two workers sends to a collector."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.gateway import Gateway, running_gateway
from tests.support.paths import FOREST
from tests.support.polling import wait_until
from tests.support.servers.collector import Collector, read_attributes, running_collector

TRACES = [f"{number:032x}" for number in range(1, 9)]
PARENT = "00f067aa0ba902b7"


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with running_collector() as server:
        yield server


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[Gateway]:
    folder: Path = tmp_path_factory.mktemp("traces")
    with running_gateway(
        folder,
        MODEL__URL="stub://",
        WEB_CONCURRENCY="2",
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
        OTEL_EXPORTER_OTLP_HEADERS="authorization=Bearer%20planted-secret",
        OTEL_TRACES_SAMPLER_ARG="0",
    ) as running:
        yield running


def test_predictions_are_traced(gateway: Gateway, collector: Collector) -> None:
    """The spans of sampled requests are sent, and no others; the log has the ids, but not the collector's secret."""
    client = gateway.client()
    for trace_id in TRACES:
        headers = {"traceparent": f"00-{trace_id}-{PARENT}-01", "Connection": "close", "Content-Type": "image/jpeg"}
        client.post("/v1/predictions", content=FOREST.read_bytes(), headers=headers).raise_for_status()
        client.get("/v1/me", headers={"traceparent": f"00-{trace_id}-{PARENT}-00"}).raise_for_status()
    wait_until(lambda: len(collector.spans()) >= 5 * len(TRACES), message=gateway.log)
    spans = collector.spans()
    assert len(spans) == 5 * len(TRACES)
    for trace_id in TRACES:
        of_trace = [span for span in spans if span.trace_id.hex() == trace_id]
        assert {span.name for span in of_trace} == {"POST /v1/predictions", "queue", "decode", "infer", "commit"}
        (server,) = (span for span in of_trace if span.parent_span_id.hex() == PARENT)
        assert read_attributes(server)["http.response.status_code"] == 200
    lines = [json.loads(line) for line in gateway.log().splitlines()]
    logged = {(line["trace_id"], line["trace_flags"]) for line in lines if line.get("http.route") == "/v1/predictions"}
    assert logged == {(trace_id, "01") for trace_id in TRACES}
    assert "planted-secret" not in gateway.log()
