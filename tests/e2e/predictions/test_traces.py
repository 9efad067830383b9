"""Traces that a running gateway with two workers sends to a collector."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.gateway import Gateway, running_gateway
from tests.support.paths import FOREST
from tests.support.polling import wait_until
from tests.support.servers.collector import Collector, read_attributes, running_collector

PARENT = "00f067aa0ba902b7"
MIN_TRACES = 8


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
        OTEL_SERVICE_NAME="land-use",
        OTEL_TRACES_SAMPLER_ARG="0",
    ) as running:
        yield running


def count_workers(gateway: Gateway) -> int:
    """Return how many workers have made a prediction: each has a chain of its own in the ledger."""
    with closing(sqlite3.connect(gateway.database_path)) as connection:
        (count,) = connection.execute("SELECT count(DISTINCT writer) FROM ledger_entries").fetchone()
    return int(count)


def request_traces(gateway: Gateway) -> list[str]:
    """Request traces of predictions until both workers have made some, and no trace of other requests."""
    client, trace_ids = gateway.client(), list[str]()

    def request_next() -> bool:
        trace_ids.append(f"{len(trace_ids) + 1:032x}")
        headers = {"traceparent": f"00-{trace_ids[-1]}-{PARENT}-01", "Connection": "close"}
        client.post("/v1/predictions", files={"file": FOREST.read_bytes()}, headers=headers).raise_for_status()
        client.get("/v1/me", headers={"traceparent": f"00-{trace_ids[-1]}-{PARENT}-00"}).raise_for_status()
        return len(trace_ids) >= MIN_TRACES and count_workers(gateway) == 2

    wait_until(request_next, message=gateway.log)
    return trace_ids


def read_log(gateway: Gateway) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gateway.log().splitlines()]


def list_logged(gateway: Gateway) -> list[tuple[str, str]]:
    """Return the trace ids and flags of the log lines of predictions."""
    lines = read_log(gateway)
    return [(line["trace_id"], line["trace_flags"]) for line in lines if line.get("http.route") == "/v1/predictions"]


def test_predictions_are_traced(gateway: Gateway, collector: Collector) -> None:
    """Every worker sends the spans of sampled requests, and no others; the log has the ids, but not the secret."""
    trace_ids = request_traces(gateway)
    wait_until(lambda: len(list_logged(gateway)) == len(trace_ids), message=gateway.log)
    flags = dict(list_logged(gateway))
    assert sorted(flags) == trace_ids
    # A worker samples a limited number of requests per second, so later ones may not be sampled.
    sampled = [trace_id for trace_id in trace_ids if flags[trace_id] == "01"]
    assert sampled[:MIN_TRACES] == trace_ids[:MIN_TRACES]
    wait_until(lambda: len(collector.spans()) >= 5 * len(sampled), message=gateway.log)
    spans = collector.spans()
    assert len(spans) == 5 * len(sampled)
    for trace_id in sampled:
        of_trace = [span for span in spans if span.trace_id.hex() == trace_id]
        assert {span.name for span in of_trace} == {"POST /v1/predictions", "queue", "decode", "infer", "commit"}
        (server,) = (span for span in of_trace if span.parent_span_id.hex() == PARENT)
        assert read_attributes(server)["http.response.status_code"] == 200
    assert "planted-secret" not in gateway.log()
    assert {line["service.name"] for line in read_log(gateway)} == {"land-use"}
