"""Metrics of state, and labels of request metrics, in a gateway in the test's own process."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Iterable
from http import HTTPMethod
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

import pytest
from cryptography.x509 import load_pem_x509_certificate
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send
from structlog.testing import capture_logs

from api.http.draining import Draining
from api.http.middleware import Observe
from api.services.background.activity import Activity
from api.services.measuring.certificates import report_certificates
from api.services.measuring.sampling import INTERVAL_S, sample_process
from api.services.measuring.shared_values import follow_quotas
from api.settings import Settings
from auth.changes import ChangeFeed
from model.serving.overload_policy import QueueLimits
from model.serving.queue import PredictionQueue
from monitoring.metrics import Metrics
from monitoring.quality.evaluation_store import EvaluationStore
from monitoring.reporting.replaceable import ReplaceableReporter
from monitoring.reporting.sentry import NullReporter
from monitoring.reporting.telemetry import Telemetry
from monitoring.tasks.runs import Task
from monitoring.tasks.store import TaskRunStore
from monitoring.tracing.tracer import FinishedRequest, RequestTrace, Tracer
from storage.engine import open_engine
from tests.monitoring.quality.evaluations import make_evaluation
from tests.support.certificates import make_authority
from tests.support.polling import wait_until, wait_until_async
from tests.support.servers.identity_provider import IdentityProvider

JPEG = {"Content-Type": "image/jpeg"}


class Observer:
    """A gateway, and the metrics that an operator reads from it."""

    def __init__(self, client: TestClient, log_in: Any) -> None:
        self.client = client
        self.operator, self.caller = log_in(client, "olga"), log_in(client)

    def scrape(self) -> str:
        text: str = self.client.get("/metrics", headers=self.operator).text
        return text

    def read(self, name: str) -> dict[tuple[str, ...], float]:
        """The values of the samples with this name, by their label values in the order of the labels' names."""
        text = self.scrape()
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        return {
            tuple(value for _, value in sorted(sample.labels.items())): sample.value
            for sample in samples
            if sample.name == name
        }


@pytest.fixture
def observer(client: TestClient, log_in: Any) -> Observer:
    return Observer(client, log_in)


def test_errors_of_the_gateway_have_a_type(make_client: Any, log_in: Any) -> None:
    """Requests are counted by scheme, and failures of the gateway by their code; errors of callers have none."""
    client = make_client(raise_errors=False)

    async def fail() -> None:
        raise ZeroDivisionError

    client.app.add_api_route("/fail", fail)
    for path in ("/fail", "/nowhere", "/v1/me", "/livez"):
        client.get(path)
    counts = Observer(client, log_in).read("http_server_request_duration_seconds_count")
    assert {labels: count for labels, count in counts.items() if labels[1] == "GET"} == {
        ("internal_error", "GET", "500", "/fail", "http"): 1,
        ("", "GET", "404", "unmatched", "http"): 1,
        ("", "GET", "401", "/v1/me", "http"): 1,
        ("", "GET", "200", "/livez", "http"): 1,
    }


def test_callers_without_credentials_cause_a_limited_number_of_series(make_client: Any, log_in: Any) -> None:
    """A caller who tries every method on every route, without credentials, causes fewer than 2000 series."""
    client = make_client()
    paths = [path.replace("{", "").replace("}", "") for path in client.get("/openapi.json").json()["paths"]]
    for method in (*HTTPMethod, "BREW"):
        for path in (*paths, "/nowhere"):
            client.request(method, path)
    text = Observer(client, log_in).scrape()
    series = [line for line in text.splitlines() if not line.startswith("#")]
    assert len(paths) * 14 < len(series) < 2000
    assert "_created" not in text
    assert set(re.findall(r'_count{.*?_code="405",http_route="(.*?)"', text)) == {"unmatched"}


@pytest.mark.usefixtures("within_one_month")
def test_usage_by_caller(observer: Observer, sample: bytes) -> None:
    """Predictions and megapixels are counted under the caller's opaque name, as GET /v1/usage counts them."""
    for _ in range(2):
        assert observer.client.post("/v1/predictions", headers=observer.caller | JPEG, content=sample).is_success
    subject = observer.client.get("/v1/me", headers=observer.caller).json()["subject"]
    used = observer.client.get("/v1/usage", headers=observer.caller).json()
    assert observer.read("atalaya_usage_predictions_total") == {(f"user:{subject}",): used["requests"]}
    (megapixels,) = observer.read("atalaya_usage_megapixels_total").values()
    assert megapixels == pytest.approx(used["megapixels"])
    assert used["requests"] == 2


def test_capacities_and_states(observer: Observer) -> None:
    """The metrics show the capacity and the state of the queue, memory for images, and the state of the database."""
    assert observer.read("atalaya_queue_capacity") == {(): 64}
    assert observer.read("atalaya_queue_length") == {(): 0}
    assert observer.read("atalaya_queue_state") == {("normal",): 1, ("shedding",): 0, ("overload",): 0}
    # The process may have been paused for so long that the last sample shows the database as down.
    wait_until(lambda: observer.read("atalaya_database_up") == {("sqlite",): 1})
    assert observer.read("atalaya_workers") == {(): 1}
    (budget,) = observer.read("atalaya_memory_budget_bytes").values()
    assert budget >= 32 << 20
    wait_until(lambda: observer.read("atalaya_event_loop_lag_seconds_count")[()] > 0)


def test_readiness_is_shown(observer: Observer) -> None:
    """The metrics show when the gateway is ready, and a quota usage of 0 without quotas."""
    wait_until(lambda: observer.read("atalaya_ready") == {(): 1})
    assert observer.read("atalaya_quota_used_ratio") == {(): 0}


def test_runs_of_scheduled_commands_are_shown(make_client: Any, settings: Settings, log_in: Any) -> None:
    """When a scheduled command has run, the gateway shows its last success and failure, and the last evaluation."""
    observer = Observer(make_client(), log_in)

    async def record() -> None:
        engine = open_engine(settings.database_url.get_secret_value())
        for at, succeeded in ((1_800_000_000, True), (1_800_000_100, False)):
            await TaskRunStore(engine).record(Task.LEDGER_VERIFY, at, succeeded=succeeded)
        await EvaluationStore(engine).add(make_evaluation(accuracy=0.75))
        await engine.dispose()

    asyncio.run(record())
    # The gateway reads the records periodically, possibly between two of these writes.
    wait_until(lambda: observer.read("atalaya_evaluation_accuracy") == {("tiny-v1.0",): 0.75})
    failed = {("ledger_verify",): 1_800_000_100}
    wait_until(lambda: observer.read("atalaya_task_last_failure_timestamp_seconds") == failed)
    wait_until(lambda: observer.read("atalaya_task_due_timestamp_seconds").get(("ledger_verify",)) == 1_800_086_400)
    assert observer.read("atalaya_ledger_verified_timestamp_seconds")
    assert observer.read("atalaya_task_last_success_timestamp_seconds") == {("ledger_verify",): 1_800_000_000}
    assert observer.read("atalaya_ledger_verification_failures_total") == {(): 1}


@pytest.fixture
def issuer(provider: IdentityProvider) -> IdentityProvider:
    """An identity provider whose documents are missing."""
    provider.documents.clear()
    return provider


def test_state_of_identity_providers(
    make_client: Any, settings: Settings, log_in: Any, issuer: IdentityProvider
) -> None:
    """An issuer whose keys could not be fetched is shown as down; one that no token has named yet is not shown."""
    issuers = [{"issuer": name, "audience": "atalaya"} for name in (issuer.issuer, "https://unused.example.org")]
    auth = Settings(auth={"issuers": json.dumps(issuers)}).auth.issuers
    observer = Observer(make_client(auth=settings.auth.model_copy(update={"issuers": auth})), log_in)
    assert observer.read("atalaya_identity_provider_up") == {}
    response = observer.client.get("/v1/me", headers={"Authorization": f"Bearer {issuer.token()}"})
    assert response.status_code == 503
    assert observer.read("atalaya_identity_provider_up") == {(issuer.issuer,): 0}


def test_expiry_of_certificates(tmp_path: Path) -> None:
    """The metrics show when the served certificate and the CA of clients expire; without TLS they show neither."""
    authority = make_authority(tmp_path / "pki")
    certificate, key = authority.issue("CN=gateway")
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    report_certificates(Settings(), metrics)
    assert registry.get_sample_value("atalaya_certificate_expiry_timestamp_seconds", {"certificate": "server"}) is None
    paths = {"tls_certificate": certificate, "tls_key": key, "tls_client_ca": str(authority.path)}
    report_certificates(Settings(**paths), metrics)
    for name, path in (("server", certificate), ("client_ca", authority.path)):
        expected = load_pem_x509_certificate(Path(path).read_bytes()).not_valid_after_utc.timestamp()
        value = registry.get_sample_value("atalaya_certificate_expiry_timestamp_seconds", {"certificate": name})
        assert value == expected


async def test_a_blocked_event_loop_and_a_lost_database_are_seen(settings: Settings) -> None:
    """Code that blocks the event loop shows in its lag, and a database that does not respond shows as down."""
    registry = CollectorRegistry()
    engine = open_engine(settings.database_url.get_secret_value())
    changes = ChangeFeed(engine)
    following = asyncio.create_task(changes.follow())
    sampling = asyncio.create_task(
        sample_process(PredictionQueue(1, QueueLimits()), changes, "sqlite", Metrics(registry), Activity(None))
    )

    def read(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, labels)

    await wait_until_async(lambda: read("atalaya_event_loop_lag_seconds_count"))
    await wait_until_async(lambda: read("atalaya_database_up", database="sqlite") == 1)
    following.cancel()  # nothing reads the changes any more, as if the database did not respond
    until = time.monotonic() + INTERVAL_S + 0.3
    while time.monotonic() < until:
        """Nothing else runs on this event loop."""
    await wait_until_async(lambda: read("atalaya_database_up", database="sqlite") == 0)
    assert (read("atalaya_event_loop_lag_seconds_sum") or 0) > 0.2
    sampling.cancel()
    await engine.dispose()


async def test_values_are_shown_again_after_an_error() -> None:
    """An unexpected error does not end a background task: the next attempt shows the value again."""
    meter = SimpleNamespace(find_highest_share=AsyncMock(side_effect=[0.25, ValueError("unexpected"), 0.5]))
    registry = CollectorRegistry()
    activity = SimpleNamespace(sleep=AsyncMock(side_effect=[None, None, asyncio.CancelledError]))
    with capture_logs() as logs, pytest.raises(asyncio.CancelledError):
        await follow_quotas(meter, Metrics(registry), activity)  # type: ignore[arg-type]
    assert registry.get_sample_value("atalaya_quota_used_ratio") == 0.5
    assert [(line["event"], line["source"]) for line in logs] == [("values_not_shown", "follow_quotas")]


def test_openmetrics_is_negotiated(observer: Observer) -> None:
    """A client that accepts OpenMetrics gets it, and any other client gets the text format with the same samples."""
    accept = {"Accept": "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.3,*/*;q=0.1"}
    response = observer.client.get("/metrics", headers=observer.operator | accept)
    assert response.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    families = list(parse_openmetrics(response.text))  # type: ignore[no-untyped-call]
    text = observer.client.get("/metrics", headers=observer.operator)
    assert (text.headers["content-type"][:25], text.headers["vary"]) == ("text/plain; version=0.0.4", "Accept")
    names = {family.name for family in families}
    assert {"atalaya_shed", "atalaya_queue_capacity", "http_server_request_duration_seconds"} <= names
    # The first response is a request that only the second one counts.
    assert _list_samples(text_string_to_metric_families(text.text)) >= _list_samples(families)


def _list_samples(families: Iterable[Metric]) -> set[tuple[str, tuple[tuple[str, str], ...]]]:
    """The names of all samples with their labels."""
    return {(sample.name, tuple(sorted(sample.labels.items()))) for family in families for sample in family.samples}


class CollectedSpans:
    """Keeps the ids of the exported traces."""

    def __init__(self) -> None:
        self.trace_ids: list[str] = []

    def export(self, trace: RequestTrace, _: FinishedRequest) -> None:
        self.trace_ids.append(trace.context.trace_id)

    def close(self) -> None:
        pass


PARENT = f"00-{'a' * 32}-{'b' * 16}"


@pytest.mark.parametrize(
    ("share", "traceparent", "traces"),
    [(1.0, None, 1), (0.0, None, 0), (0.0, f"{PARENT}-01", 1), (1.0, f"{PARENT}-00", 0)],
)
async def test_recorded_traces_are_exemplars(share: float, traceparent: str | None, traces: int) -> None:
    """The bucket of a request has the trace id as an exemplar if the trace is recorded, and otherwise no exemplar."""

    async def app(_: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def exchange(*_: Any) -> Any:
        return {"type": "http.request"}

    registry, spans = CollectorRegistry(), CollectedSpans()
    telemetry = Telemetry(Metrics(registry), ReplaceableReporter(NullReporter()), Tracer(spans, share))
    state: dict[str, Any] = {"draining": Draining(), "activity": Activity(None)}
    observe = Observe(app, telemetry=telemetry, **state, extra_headers=lambda _: (), https=False)
    headers = [] if traceparent is None else [(b"traceparent", traceparent.encode())]
    await observe({"type": "http", "method": "GET", "scheme": "http", "headers": headers}, exchange, exchange)
    exemplars = [
        sample.exemplar.labels
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "http_server_request_duration_seconds_bucket" and sample.exemplar
    ]
    assert len(exemplars) == traces
    assert exemplars == [{"trace_id": trace_id} for trace_id in spans.trace_ids]
