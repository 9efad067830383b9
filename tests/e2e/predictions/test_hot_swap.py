"""A gateway with two workers that follows an alias of the registry, under load and without a restart."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import NamedTuple

import httpx
import pytest

from model.errors import KerasMissing
from model.offline.keras_process import find_interpreter
from tests.model.registry.registered_models import (
    NAME,
    ModelRegistry,
    find_mixture,
    find_other,
    make_registry,
    read_entries,
)
from tests.support.callers import running_threads
from tests.support.gateway import Gateway, running_gateway
from tests.support.paths import ARTEFACT, FOREST
from tests.support.polling import wait_until
from tests.support.requirements import missing

WORKERS = 2
CONNECTIONS = 4
IMPORT_LIMIT_S = 600.0  # a conversion takes a minute of processor time
FAILED = 'atalaya_model_loads_total{outcome="failed"}'


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> ModelRegistry:
    """A registry with versions 2.0 (in production), 2.1, and 2.2, whose graph is damaged."""
    registry = make_registry(tmp_path_factory.mktemp("registry"))
    registry.add("2.2")
    registry.find_file("2.2", "model.onnx").write_bytes(b"not a graph")
    return registry


@pytest.fixture(scope="module")
def gateway(registry: ModelRegistry) -> Iterator[Gateway]:
    patience = {"MODEL__QUEUE_SECONDS": "60", "MODEL__DEADLINE_SECONDS": "300"}  # no overload on a slow machine
    changes = {"WEB_CONCURRENCY": str(WORKERS), "MODEL__WORKERS": "1", **patience, **registry.settings}
    with running_gateway(None, **changes) as gateway:
        wait_until(lambda: gateway.log().count('"worker_ready"') == WORKERS)
        yield gateway


def count_switches(gateway: Gateway) -> int:
    return gateway.log().count('"model_switched"')


def promote(gateway: Gateway, registry: ModelRegistry, version: str) -> None:
    """Move the alias, and return once both workers have switched."""
    switched = count_switches(gateway)
    if registry.promoted != version:
        registry.promote(version)
        wait_until(lambda: count_switches(gateway) == switched + WORKERS, message=gateway.log)


class Sent(NamedTuple):
    """A request: when it was sent, in seconds of time.monotonic(), and its response."""

    started: float
    response: httpx.Response


@contextmanager
def load(gateway: Gateway) -> Iterator[list[Sent]]:
    """Send predictions without pause during the block, each on a connection of its own so that both workers serve."""
    headers = {"Authorization": f"Bearer {gateway.token()}", "Content-Type": "image/jpeg"}
    image, responses = FOREST.read_bytes(), list[Sent]()

    def send(ended: threading.Event) -> None:
        while not ended.is_set():
            started = time.monotonic()
            responses.append(Sent(started, gateway.post("/v1/predictions", content=image, headers=headers)))

    with running_threads(send, CONNECTIONS):
        yield responses


def wait_for_later(responses: list[Sent]) -> Callable[[], set[str]]:
    """Wait for responses to requests sent from now on; return a function that lists the versions that served them."""
    now = time.monotonic()
    wait_until(lambda: sum(sent.started > now for sent in list(responses)) > 10)
    return lambda: {sent.response.json()["model"]["version"] for sent in responses if sent.started > now}


def test_both_workers_follow_each_promotion_and_no_request_notices(gateway: Gateway, registry: ModelRegistry) -> None:
    """Under load no request fails, each response is of one version, and after a move both workers serve the new one."""
    promote(gateway, registry, "2.0")
    failed = gateway.metric(FAILED)
    with load(gateway) as responses:
        for version in ("2.1", "2.0", "2.1"):
            promote(gateway, registry, version)
        later = wait_for_later(responses)
    assert [sent.response.text for sent in responses if sent.response.status_code != HTTPStatus.OK] == []
    bodies = [sent.response.json() for sent in responses]
    # An entry is spooled first if the other worker holds the lock of the database for too long.
    wait_until(lambda: {body["id"] for body in bodies} <= read_entries(gateway.database_path).keys())
    entries = read_entries(gateway.database_path)
    assert [problem for body in bodies if (problem := find_mixture(body, entries[body["id"]]))] == []
    assert {body["model"]["version"] for body in bodies} == {"2.0", "2.1"}
    assert later() == {"2.1"}
    assert gateway.metric('atalaya_model_loads_total{outcome="switched"}') == count_switches(gateway)
    assert gateway.metric(FAILED) == failed


def test_a_version_that_cannot_be_loaded_leaves_the_previous_one_in_service(
    gateway: Gateway, registry: ModelRegistry
) -> None:
    """Both workers reject a damaged graph, log why and continue to serve; they follow the next move of the alias."""
    promote(gateway, registry, "2.0")
    registry.promote("2.2")
    # Not exactly as often: a worker tries again after half a minute.
    wait_until(lambda: gateway.log().count('"model_not_switched"') >= WORKERS, message=gateway.log)
    with load(gateway) as responses:
        wait_until(lambda: len(responses) > 8)
        health = gateway.get("/readyz")
    assert {sent.response.status_code for sent in responses} == {200}
    assert {sent.response.json()["model"]["version"] for sent in responses} == {"2.0"}
    assert (health.status_code, health.json()["checks"]["model"]) == (200, "digest_mismatch")
    assert gateway.metric(FAILED) >= WORKERS
    assert "model.onnx differs from its manifest" in gateway.log()
    promote(gateway, registry, "2.1")
    wait_until(lambda: gateway.get("/readyz").json()["checks"]["model"] == "ok")


def test_predictions_of_earlier_versions_are_replayed_from_the_registry(
    gateway: Gateway, registry: ModelRegistry
) -> None:
    """The replay finds the version that a prediction was made with, even if another version shares its graph."""
    client, image = gateway.client(), FOREST.read_bytes()
    before = client.post("/v1/predictions", files={"file": image}).json()
    promote(gateway, registry, find_other(before["model"]["version"]))
    after = client.post("/v1/predictions", files={"file": image}).json()
    assert after["model"]["version"] != before["model"]["version"]
    for prediction in (before, after):
        replayed = gateway.run("ledger", "replay", prediction["id"], str(FOREST))
        assert replayed.returncode == 0, replayed.stderr
        assert f"-v{prediction['model']['version']}" in replayed.stdout


def test_the_shipped_file_is_imported_and_promoted_over_itself(gateway: Gateway, registry: ModelRegistry) -> None:
    """Under load, the shipped .keras passes the gate, is converted in the sandbox, and replaces its own artefact."""
    promote(gateway, registry, "2.0")
    try:
        python = find_interpreter()
    except KerasMissing as error:
        missing(str(error))
    importing = gateway.with_settings(MODEL__KERAS_PYTHON=str(python))
    switched = count_switches(gateway)
    with load(gateway) as responses:
        imported = importing.run(
            *("models", "import", str(ARTEFACT / "model.keras"), "--name", NAME, "--version", "3.0"),
            limit_s=IMPORT_LIMIT_S,
        )
        assert imported.returncode == 0, imported.stderr
        promoted = gateway.run("models", "promote", NAME, "3.0", "--why", "imported again", "--expect", "2.0")
        assert promoted.returncode == 0, promoted.stderr
        wait_until(lambda: count_switches(gateway) == switched + WORKERS, message=gateway.log)
        later = wait_for_later(responses)
    assert [sent.response.text for sent in responses if sent.response.status_code != HTTPStatus.OK] == []
    assert later() == {"3.0"}
    assert {sent.response.json()["label"] for sent in responses} == {"forest"}
    promote(gateway, registry, "2.0")
