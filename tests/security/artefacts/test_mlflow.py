"""A gateway of two workers follows an alias in a real MLflow server, and keeps serving without that server: T59."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import pytest

from model.registry.mlflow.publishing import publish
from model.signing.folder import sign_folder
from model.signing.keys import encode_public_key
from tests.model.registry.mlflow.servers import RunningMlflow, open_client, running_mlflow
from tests.model.registry.registered_models import NAME, URL, write_variant
from tests.model.signing.forging import new_key
from tests.support.gateway import Gateway, running_gateway
from tests.support.linux import processes
from tests.support.paths import FOREST
from tests.support.polling import wait_until

pytestmark = pytest.mark.long
WORKERS = 2
FAILED = 'atalaya_registry_pulls_total{outcome="failed"}'


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMlflow]:
    with running_mlflow(tmp_path_factory.mktemp("mlflow")) as server:
        yield server


@pytest.fixture(scope="module")
def gateway(mlflow: RunningMlflow, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway whose MLflow has 2.0 (in production), 2.1, and 2.2, whose graph was replaced in MLflow's storage."""
    folder, key = tmp_path_factory.mktemp("published"), new_key()
    settings = {
        "WEB_CONCURRENCY": str(WORKERS),
        "MODEL__WORKERS": "1",
        "MODEL__URL": URL,
        "MODEL__VERIFY_KEY": encode_public_key(key.public_key()),
        **mlflow.settings,
    }
    with open_client(mlflow) as server:
        for version, alias in (("2.0", "production"), ("2.1", None), ("2.2", None)):
            (folder / version).mkdir()
            write_variant(folder / version, version, {})
            sign_folder(folder / version, key)
            publish(server, folder / version, key.public_key(), alias)
    mlflow.find_file(f"{NAME}-v2.2", "model.onnx").write_bytes(b"another graph")
    with running_gateway(None, **settings) as gateway:
        wait_until(lambda: gateway.log().count('"worker_ready"') == WORKERS)
        yield gateway


@pytest.fixture
def promote(mlflow: RunningMlflow) -> Callable[[str], None]:
    """A function that moves the alias `production` in MLflow."""

    def promote(version: str) -> None:
        number = {"2.0": "1", "2.1": "2", "2.2": "3"}[version]
        with open_client(mlflow) as server:
            server.post("registered-models/alias", name=NAME, alias="production", version=number)

    return promote


@pytest.fixture
def serve(gateway: Gateway, promote: Callable[[str], None]) -> Callable[[str], None]:
    """A function that moves the alias, and returns once both workers have followed it."""

    def serve(version: str) -> None:
        followed = served_versions(gateway) == {version}
        switched = gateway.log().count('"model_switched"')
        promote(version)
        wait_until(
            lambda: followed or gateway.log().count('"model_switched"') == switched + WORKERS, message=gateway.log
        )
        assert served_versions(gateway) == {version}

    return serve


def served_versions(gateway: Gateway) -> set[str]:
    """Return the versions that made several predictions, each on its own connection so that both workers serve."""
    headers = {"Authorization": f"Bearer {gateway.token()}", "Content-Type": "image/jpeg"}
    responses = [
        gateway.post("/v1/predictions", content=FOREST.read_bytes(), headers=headers) for _ in range(4 * WORKERS)
    ]
    return {response.json()["model"]["version"] for response in responses}


def test_both_workers_follow_an_alias_that_moves_in_mlflow(
    gateway: Gateway, mlflow: RunningMlflow, serve: Callable[[str], None]
) -> None:
    """Both workers follow each move of the alias in MLflow; neither the log nor `/readyz` shows MLflow's password."""
    for version in ("2.1", "2.0"):
        serve(version)
    wait_until(lambda: gateway.get("/readyz").json()["checks"]["model"] == "ok", message=gateway.log)
    assert mlflow.password not in gateway.log()
    assert mlflow.password not in gateway.get("/readyz").text


def test_replaced_artefact_is_rejected(
    gateway: Gateway, promote: Callable[[str], None], serve: Callable[[str], None]
) -> None:
    """A version whose graph was replaced in MLflow's storage is not served: the log and `/readyz` say why."""
    serve("2.0")
    promote("2.2")
    wait_until(lambda: "model.onnx differs from its manifest" in gateway.log(), message=gateway.log)
    # Either worker may respond, and one may not have checked yet.
    wait_until(lambda: gateway.get("/readyz").json()["checks"]["model"] == "digest_mismatch", message=gateway.log)
    assert served_versions(gateway) == {"2.0"}
    promote("2.0")


def test_gateway_serves_without_mlflow(gateway: Gateway, mlflow: RunningMlflow, serve: Callable[[str], None]) -> None:
    """While MLflow is down, the gateway serves the last version, logs that once, counts it, and stays ready."""

    def show_state() -> str:
        state: str = gateway.get("/readyz").json()["checks"]["model"]
        return state

    serve("2.1")
    reported = gateway.log().count("cannot be reached")
    mlflow.kill()
    try:
        wait_until(lambda: show_state() == "registry_unavailable", message=gateway.log)
        failed = gateway.metric(FAILED)
        wait_until(lambda: gateway.metric(FAILED) > failed + 1, message=gateway.log)
        assert gateway.get("/readyz").status_code == 200
        assert served_versions(gateway) == {"2.1"}
        assert gateway.log().count("cannot be reached") == reported + 1
    finally:
        mlflow.start()
    serve("2.0")


def test_one_process_pulls_and_is_started_again(gateway: Gateway, serve: Callable[[str], None]) -> None:
    """One worker has a process that pulls artefacts; if it is killed, another one is started."""

    def find_pullers() -> list[int]:
        return [pid for worker in gateway.workers() for pid in processes.children(worker)]

    wait_until(lambda: len(find_pullers()) == 1, message=gateway.log)
    (killed,) = find_pullers()
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: find_pullers() not in ([], [killed]), message=gateway.log)
    serve("2.1" if served_versions(gateway) == {"2.0"} else "2.0")
    assert len(find_pullers()) == 1
