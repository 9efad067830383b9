"""A gateway in front of two real Triton servers, including when these are killed."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator

import httpx
import pytest

from tests.model.registry.registered_models import read_entries
from tests.support.callers import Callers
from tests.support.gateway import Gateway, running_gateway
from tests.support.linux.processes import resident_bytes
from tests.support.paths import FOREST
from tests.support.polling import wait_until
from tests.support.servers.engines.running import MODEL, RunningEngine, running_engines

MAX_BYTES = 160 << 20
PATIENCE = {"MODEL__QUEUE_SECONDS": "60", "MODEL__DEADLINE_SECONDS": "300"}  # no overload on a slow machine


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RunningEngine]]:
    with running_engines(tmp_path_factory.mktemp("engines"), "triton", "triton") as engines:
        yield engines


@pytest.fixture(scope="module")
def started_gateway(engines: list[RunningEngine]) -> Iterator[Gateway]:
    url = f"oip+http://{','.join(engine.endpoint for engine in engines)}/{MODEL}"
    with running_gateway(None, MODEL__URL=url, **PATIENCE) as gateway:
        yield gateway


@pytest.fixture
def gateway(started_gateway: Gateway, engines: list[RunningEngine]) -> Gateway:
    """The gateway with both engines in use, after a restart of those that another test has killed."""
    for engine in engines:
        if not engine.is_running:
            engine.start()
    for engine in engines:
        wait_until(functools.partial(is_up, started_gateway, engine), message=started_gateway.log)
    return started_gateway


def predict(gateway: Gateway) -> httpx.Response:
    return gateway.client().post("/v1/predictions", files={"file": FOREST.read_bytes()})


def count_by_endpoint(gateway: Gateway, engines: list[RunningEngine]) -> Counter[str]:
    sample = 'atalaya_engine_request_seconds_count{endpoint="%s"}'
    return Counter({each.endpoint: int(gateway.metric(sample % each.endpoint)) for each in engines})


def is_up(gateway: Gateway, engine: RunningEngine) -> bool:
    return gateway.metric(f'atalaya_engine_up{{endpoint="{engine.endpoint}"}}') == 1


def test_a_gateway_without_a_local_model_is_small(gateway: Gateway) -> None:
    """Without a local model, a gateway does not load ONNX Runtime, and takes at most 160 MB after a prediction."""
    assert predict(gateway).status_code == 200
    with open(f"/proc/{gateway.pid}/maps") as maps:
        assert "onnxruntime" not in maps.read()
    assert resident_bytes(gateway.pid) <= MAX_BYTES


def test_the_ledger_records_the_engine(gateway: Gateway, engines: list[RunningEngine]) -> None:
    """An entry names the endpoint and the version that computed the prediction, with an unknown digest."""
    body = predict(gateway).json()
    entry = read_entries(gateway.database_path)[body["id"]]
    assert body["label"] == entry["output"]["label"] == "forest"
    assert body["model"]["digest"] is entry["model"]["digest"] is None
    assert entry["engine"].pop("endpoint") in {engine.endpoint for engine in engines}
    assert entry["engine"] == {"version": "1", "digest_source": None}
    assert "onnxruntime" not in entry["runtime"]
    assert isinstance(entry["output"]["gate_score"], float)


async def test_an_engine_that_is_killed_fails_no_request(gateway: Gateway, engines: list[RunningEngine]) -> None:
    """Two engines share the load; when one is killed, the other takes all of it, and no request fails."""
    before = count_by_endpoint(gateway, engines)
    callers = Callers(gateway.port, gateway.token())
    _, killed = engines

    def has_shared() -> bool:
        # Not equally: on a busy machine the engines are not equally fast, and the faster one gets more.
        served = count_by_endpoint(gateway, engines) - before
        return all(served[engine.endpoint] >= 30 for engine in engines)

    def share_then_kill() -> None:
        wait_until(has_shared)
        killed.kill()
        wait_until(lambda: not is_up(gateway, killed), message=gateway.log)

    await callers.run(share_then_kill)
    assert set(callers.outcomes) == {"200"}
    assert gateway.metric("atalaya_engine_retries_total") > 0
    wait_until(lambda: '"engine_ejected"' in gateway.log())


def test_without_engines_requests_are_rejected(engines: list[RunningEngine], gateway: Gateway) -> None:
    """While no engine works and there is no local model, the gateway is not ready and rejects predictions."""
    for engine in engines:
        engine.kill()
    wait_until(lambda: gateway.get("/readyz").status_code == 503)
    assert gateway.get("/readyz").json()["checks"]["model"] == "EngineUnavailable"
    refused = predict(gateway)
    assert (refused.status_code, refused.json()["code"]) == (503, "engine_unavailable")
    assert refused.headers["Retry-After"] == "1"


def test_the_local_model_predicts_while_no_engine_works() -> None:
    """With MODEL__FALLBACK=local, a gateway without a working engine predicts with the local one, and reports that."""
    with running_gateway(None, MODEL__URL=f"oip+http://127.0.0.1:9/{MODEL}", MODEL__FALLBACK="local") as gateway:
        body = predict(gateway).json()
        assert body["label"] == "forest"
        entry = read_entries(gateway.database_path)[body["id"]]
        assert entry["engine"] == {"endpoint": "local", "version": "1.1", "digest_source": "artefact"}
        assert entry["model"]["digest"] == body["model"]["digest"] is not None
        assert gateway.get("/readyz").json()["checks"]["model"] == "fallback"
        assert gateway.metric("atalaya_engine_fallbacks_total") == 1
