"""A gateway of two workers follows an alias of the registry, under load and without a restart."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http import HTTPStatus
from typing import Any

import httpx
import pytest

from tests.support.gateway import TIMEOUT_S, Gateway, running_gateway
from tests.support.paths import ARTEFACT, FOREST
from tests.support.polling import wait_until
from tests.support.registered_models import ModelRegistry

WORKERS = 2
CONNECTIONS = 4
FAILED = 'atalaya_model_loads_total{outcome="failed"}'
CLASSES = json.loads((ARTEFACT / "manifest.json").read_text())["classes"]
# What the versions differ in beside their names, so that a response or an entry with parts of both is recognised.
TEMPERATURES = {"2.0": 1.5, "2.1": 3.0}
LABELS = {"2.0": CLASSES, "2.1": CLASSES[::-1]}


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> ModelRegistry:
    """Versions 2.0 (in production), 2.1, and 2.2, whose graph is damaged."""
    registry = ModelRegistry(tmp_path_factory.mktemp("registry"))
    for version, temperature in TEMPERATURES.items():
        registry.add(version, classes=LABELS[version], calibration={"temperature": temperature})
    registry.add("2.2")
    registry.find_file("2.2", "model.onnx").write_bytes(b"not a graph")
    registry.promote("2.0")
    return registry


@pytest.fixture(scope="module")
def gateway(registry: ModelRegistry) -> Iterator[Gateway]:
    patience = {"MODEL__QUEUE_SECONDS": "60", "MODEL__DEADLINE_SECONDS": "300"}  # a slow machine is not overloaded
    changes = {"WEB_CONCURRENCY": str(WORKERS), "MODEL__WORKERS": "1", **patience, **registry.settings}
    with running_gateway(None, **changes) as gateway:
        wait_until(lambda: gateway.log().count('"worker_ready"') == WORKERS)
        yield gateway


def count_switches(gateway: Gateway) -> int:
    return gateway.log().count('"model_switched"')


def promote(gateway: Gateway, registry: ModelRegistry, version: str) -> None:
    """Move the alias, and return once both workers have followed."""
    switched = count_switches(gateway)
    if registry.promoted != version:
        registry.promote(version)
        wait_until(lambda: count_switches(gateway) == switched + WORKERS, message=gateway.log)


def find_other(version: str) -> str:
    (other,) = TEMPERATURES.keys() - {version}
    return other


@contextmanager
def load(gateway: Gateway) -> Iterator[list[httpx.Response]]:
    """Send predictions without pause for the block, each on a connection of its own so that both workers serve."""
    headers = {"Authorization": f"Bearer {gateway.token()}", "Content-Type": "image/jpeg"}
    image, ended, responses = FOREST.read_bytes(), threading.Event(), list[httpx.Response]()

    def send() -> None:
        while not ended.is_set():
            url = f"{gateway.base_url}/v1/predictions"
            responses.append(httpx.post(url, content=image, headers=headers, timeout=TIMEOUT_S))

    threads = [threading.Thread(target=send) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    try:
        yield responses
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def read_entries(gateway: Gateway) -> dict[str, Any]:
    """What the ledger holds of each prediction, by its id."""
    with closing(sqlite3.connect(gateway.database_path)) as connection:
        rows = connection.execute("SELECT id, document FROM ledger_payloads").fetchall()
    return {row[0]: json.loads(row[1]) for row in rows}


def find_mixture(body: dict[str, Any], entry: dict[str, Any]) -> str | None:
    """What of a response or its entry belongs to another version than the response names."""
    version, output = body["model"]["version"], entry["output"]
    recorded = (entry["model"]["version"], entry["model"]["digest"], output["label"], output["confidence"])
    if recorded != (version, body["model"]["digest"], body["label"], body["confidence"]):
        return f"the entry differs: {recorded}"
    if output["temperature"] != TEMPERATURES[version]:
        return f"the temperature is {output['temperature']}"
    best = max(output["probabilities"], key=output["probabilities"].get)
    if not LABELS[version][output["index"]] == best == body["label"]:
        return f"the label is {body['label']}"
    return None


def test_both_workers_follow_each_promotion_and_no_request_notices(gateway: Gateway, registry: ModelRegistry) -> None:
    """Under load no request fails, each response is of one version, and after a move both workers serve the new one."""
    promote(gateway, registry, "2.0")
    failed = gateway.metric(FAILED)
    with load(gateway) as responses:
        for version in ("2.1", "2.0", "2.1"):
            promote(gateway, registry, version)
        later = len(responses) + CONNECTIONS  # those in progress may have started before
        wait_until(lambda: len(responses) > later + 10)
    assert [response.text for response in responses if response.status_code != HTTPStatus.OK] == []
    bodies = [response.json() for response in responses]
    entries = read_entries(gateway)
    assert [problem for body in bodies if (problem := find_mixture(body, entries[body["id"]]))] == []
    assert {body["model"]["version"] for body in bodies} == {"2.0", "2.1"}
    assert {body["model"]["version"] for body in bodies[later:]} == {"2.1"}
    assert gateway.metric('atalaya_model_loads_total{outcome="switched"}') == count_switches(gateway)
    assert gateway.metric(FAILED) == failed


def test_a_version_that_cannot_be_loaded_leaves_the_previous_one_in_service(
    gateway: Gateway, registry: ModelRegistry
) -> None:
    """A damaged graph is refused by both workers, which say why and serve on; the next move is followed."""
    promote(gateway, registry, "2.0")
    registry.promote("2.2")
    wait_until(lambda: gateway.log().count('"model_not_switched"') == WORKERS, message=gateway.log)
    with load(gateway) as responses:
        wait_until(lambda: len(responses) > 8)
        health = gateway.get("/readyz")
    assert {response.status_code for response in responses} == {200}
    assert {response.json()["model"]["version"] for response in responses} == {"2.0"}
    assert (health.status_code, health.json()["checks"]["model"]) == (200, "digest_mismatch")
    assert gateway.metric(FAILED) == WORKERS
    assert "model.onnx differs from its manifest" in gateway.log()
    promote(gateway, registry, "2.1")
    wait_until(lambda: gateway.get("/readyz").json()["checks"]["model"] == "ok")


def test_predictions_of_earlier_versions_are_replayed_from_the_registry(
    gateway: Gateway, registry: ModelRegistry
) -> None:
    """The replay finds the version that a prediction was made with, also if another one shares its graph."""
    client, image = gateway.client(), FOREST.read_bytes()
    before = client.post("/v1/predictions", files={"file": image}).json()
    promote(gateway, registry, find_other(before["model"]["version"]))
    after = client.post("/v1/predictions", files={"file": image}).json()
    assert after["model"]["version"] != before["model"]["version"]
    for prediction in (before, after):
        replayed = gateway.run("ledger", "replay", prediction["id"], str(FOREST))
        assert replayed.returncode == 0, replayed.stderr
        assert f"-v{prediction['model']['version']}" in replayed.stdout
