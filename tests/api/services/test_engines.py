"""Gateways in front of inference engines."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from prometheus_client import CollectorRegistry
from starlette.testclient import TestClient

from api.services.measuring.engines import EngineReports
from api.settings import Settings
from api.settings.model import Fallback
from model.backends.oip.events import EngineEvent, EventKind
from monitoring.metrics import Metrics
from monitoring.metrics.groups.dependencies import MAX_ENDPOINTS
from tests.api.conftest import LogIn, MakeClient
from tests.api.routes.v2.bodies import describe_files, make_body, pack
from tests.model.backends.oip.scripted_engine import SPEC, ScriptedEngine, describe_model
from tests.model.backends.tiny_onnx import write_tiny_artefact
from tests.model.registry.registered_models import read_entries
from tests.support.polling import wait_until
from tests.support.servers.running import running

FILES = 4


@pytest.fixture
def engine() -> Iterator[ScriptedEngine]:
    with running(ScriptedEngine()) as engine:
        yield engine


@pytest.fixture
def other() -> Iterator[ScriptedEngine]:
    with running(ScriptedEngine()) as engine:
        yield engine


@pytest.fixture
def connect(make_client: MakeClient, settings: Settings, tmp_path: Path) -> Any:
    """Start a gateway in front of engines."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    write_tiny_artefact(folder, SPEC)

    def start(*engines: ScriptedEngine, **changes: Any) -> TestClient:
        url = f"oip+http://{','.join(engine.endpoint for engine in engines)}/tiny"
        model = settings.model.model_copy(update={"url": url, "manifest": folder, **changes})
        return make_client(model=model)

    return start


def make_png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 0, 0)).save(file, "PNG")
    return file.getvalue()


def infer(client: TestClient, bearer: dict[str, str]) -> int:
    """Request predictions of several files at once; returns the status."""
    header, body = make_body(describe_files(FILES), pack(*[make_png()] * FILES))
    return client.post("/v2/models/tiny/infer", headers=bearer | header, content=body).status_code


def test_a_silent_engine_does_not_stop_the_gateway(
    connect: Any, log_in: LogIn, engine: ScriptedEngine, other: ScriptedEngine
) -> None:
    """While one of two engines is silent, predictions succeed, and the gateway is ready again afterwards."""
    client = connect(engine, other, stuck_seconds=12)
    bearer = log_in(client)
    with engine.script.silent:
        responses = [client.post("/v1/predictions", headers=bearer, files={"file": make_png()}) for _ in range(6)]
    assert [(response.status_code, response.json()["label"]) for response in responses] == [(200, "red")] * 6
    assert len(engine.script.requests) >= 3
    wait_until(lambda: client.get("/readyz").is_success)


def test_a_request_may_use_engines_of_which_one_names_its_digest(
    connect: Any, log_in: LogIn, engine: ScriptedEngine, other: ScriptedEngine
) -> None:
    """Engines serve one model unless their digests differ; then a request for several images gets 503."""
    other.script.model = describe_model(parameters={"digest": "ab" * 32})
    client = connect(engine, other)
    assert infer(client, log_in(client)) == 200
    assert min(len(each.script.requests) for each in (engine, other)) > 0
    engine.script.model = describe_model(parameters={"digest": "cd" * 32})
    client = connect(engine, other)
    assert infer(client, log_in(client)) == 503


def test_the_ledger_records_the_digest_that_the_engine_names(
    connect: Any, log_in: LogIn, settings: Settings, engine: ScriptedEngine
) -> None:
    """If the metadata of an engine name its model's digest, the response has it, and the ledger also its source."""
    engine.script.model = describe_model(parameters={"digest": "ab" * 32})
    client = connect(engine)
    body = client.post("/v1/predictions", headers=log_in(client), files={"file": make_png()}).json()
    entry = read_entries(Path(settings.database_url.get_secret_value().removeprefix("sqlite:///")))[body["id"]]
    assert body["model"]["digest"] == entry["model"]["digest"] == "ab" * 32
    assert entry["engine"] == {"endpoint": engine.endpoint, "version": "7", "digest_source": "metadata"}


def test_a_request_may_end_with_the_local_model(connect: Any, log_in: LogIn, engine: ScriptedEngine) -> None:
    """Images of one request are predicted by an engine and, after it fails, by the local model."""
    client = connect(engine, fallback=Fallback.LOCAL)
    bearer = log_in(client)
    engine.script.fails_after = 2
    assert infer(client, bearer) == 200
    assert len(engine.script.requests) >= 2
    assert "atalaya_engine_fallbacks_total 2" in read_metrics(client, log_in)


def test_an_engine_that_is_down_at_the_start_is_shown(connect: Any, log_in: LogIn, engine: ScriptedEngine) -> None:
    """The metrics show 0 for an engine that was down when the gateway started."""
    closed = ScriptedEngine()
    closed.server_close()
    client = connect(engine, closed)
    wait_until(lambda: f'atalaya_engine_up{{endpoint="{engine.endpoint}"}} 1.0' in read_metrics(client, log_in))
    assert f'atalaya_engine_up{{endpoint="{closed.endpoint}"}} 0.0' in read_metrics(client, log_in)


def test_engines_that_share_a_series_are_all_up() -> None:
    """The engines after the first 64 share a series, which is 0 while any of them is ejected."""
    registry = CollectorRegistry()
    reports = EngineReports(Metrics(registry))

    def report(kind: EventKind, endpoint: str) -> float | None:
        reports.report(EngineEvent(kind, endpoint))
        return registry.get_sample_value("atalaya_engine_up", {"endpoint": "other"})

    for number in range(MAX_ENDPOINTS):
        assert report(EventKind.ADMITTED, f"10.0.0.{number}:8000") is None
    assert [report(EventKind.ADMITTED, "a:1"), report(EventKind.EJECTED, "b:1"), report(EventKind.ADMITTED, "c:1")] == [
        1,
        0,
        0,
    ]
    assert [report(EventKind.REMOVED, "c:1"), report(EventKind.REMOVED, "b:1")] == [0, 1]
    assert math.isnan(report(EventKind.REMOVED, "a:1") or 0)


def read_metrics(client: TestClient, log_in: LogIn) -> str:
    return client.get("/metrics", headers=log_in(client, "olga")).text
