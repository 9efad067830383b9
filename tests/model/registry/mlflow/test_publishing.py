"""Publishing artefacts to a real MLflow server, from code and from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from api.cli import run
from model.errors import DigestMismatch
from model.registry.errors import InvalidName, VersionExists
from model.registry.files import FileRegistry
from model.registry.mlflow.publishing import publish
from model.registry.mlflow.server import MlflowServer
from monitoring.chains.signing import new_private_key
from tests.model.registry.mlflow.servers import RunningMlflow
from tests.model.registry.versions import GRAPH, write_artefact


def test_artefact_becomes_a_version_of_the_registered_model(server: MlflowServer, name: str, tmp_path: Path) -> None:
    """Publishing creates the registered model, and versions with MLflow's numbers and the artefact's version as tag."""
    for number, version in (("1", "1.0"), ("2", "1.1")):
        assert publish(server, write_artefact(tmp_path / version, version, name), None).number == number
    found = server.get("model-versions/get", name=name, version="2")["model_version"]
    assert found["tags"] == [{"key": "atalaya.version", "value": "1.1"}]
    assert found["status"] == "READY"
    assert server.read_model(name).aliases == {}


def test_version_is_published_once(server: MlflowServer, name: str, tmp_path: Path) -> None:
    """A version of a model cannot be published again, not even with another artefact."""
    publish(server, write_artefact(tmp_path / "1.0", "1.0", name), None)
    with pytest.raises(VersionExists, match="was published before, as version 1"):
        publish(server, write_artefact(tmp_path / "again", "1.0", name, graph=b"other"), None)


def test_nothing_is_published_that_could_not_be_served(server: MlflowServer, name: str, tmp_path: Path) -> None:
    """A changed file and an invalid alias are rejected before anything is created in MLflow."""
    folder = write_artefact(tmp_path / "1.0", "1.0", name)
    with pytest.raises(InvalidName):
        publish(server, folder, None, "no alias")
    (folder / "model.onnx").write_bytes(b"a grape")
    with pytest.raises(DigestMismatch):
        publish(server, folder, None)
    assert "registered_models" not in server.get("registered-models/search", filter=f"name = '{name}'")


def test_commands_publish_and_pull(
    mlflow: RunningMlflow,
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`models publish` uploads an artefact and moves an alias; `models pull` mirrors the versions with an alias."""
    for setting, value in mlflow.settings.items():
        monkeypatch.setenv(setting, value)
    monkeypatch.setenv("MODEL__URL", f"registry://{name}@production")
    folder = write_artefact(tmp_path / "artefact", "1.0", name)
    assert run(["models", "publish", str(folder), "--alias", "production"]) == 0
    assert capsys.readouterr().out == f"{name} 1.0 is version 1 in MLflow. 'production' points to it now.\n"
    assert run(["models", "pull"]) == 0
    assert capsys.readouterr().out == "production now points to 1.0.\n"
    assert (tmp_path / "var/mirror" / name / "versions/1.0/model.onnx").read_bytes() == GRAPH
    second = write_artefact(tmp_path / "second", "1.1", name)
    assert run(["models", "publish", str(second), "--to", f"mlflow+{mlflow.url}/", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"model": name, "version": "1.1", "mlflow_version": "2"}
    assert run(["models", "publish", str(second)]) == 1
    assert capsys.readouterr().err.startswith(f"error: {name} 1.1 was published before, as version 2 in MLflow.")


def test_commands_without_a_server_say_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without an MLflow server in the settings, both commands report which setting or option must name one."""
    folder = str(write_artefact(tmp_path / "artefact", "1.0"))
    assert run(["models", "publish", folder]) == 1
    assert "MODEL__REGISTRY names no MLflow server" in capsys.readouterr().err
    assert run(["models", "publish", folder, "--to", "http://127.0.0.1"]) == 2
    assert "It must be mlflow+http://HOST[:PORT]" in capsys.readouterr().err
    assert run(["models", "pull"]) == 1
    assert "MODEL__REGISTRY must name an MLflow server" in capsys.readouterr().err


def test_moves_are_made_in_mlflow_alone_and_recorded_in_the_ledger(
    mlflow: RunningMlflow,
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A move made in MLflow is in the history as made by `mlflow`, and `promote` moves no alias of the mirror."""
    settings = {"MODEL__URL": f"registry://{name}@production", "LEDGER__SIGNING_KEY": new_private_key()}
    for setting, value in {**mlflow.settings, **settings}.items():
        monkeypatch.setenv(setting, value)
    assert run(["db", "init"]) == 0
    assert run(["models", "publish", str(write_artefact(tmp_path / "1.0", "1.0", name)), "--alias", "production"]) == 0
    assert run(["models", "pull"]) == 0
    capsys.readouterr()
    assert run(["models", "history", name, "--json"]) == 0
    history = json.loads(capsys.readouterr().out)
    assert [(period["version"], period["who"]) for period in history["periods"]] == [("1.0", "mlflow")]
    assert history["verified"]
    assert run(["models", "promote", name, "1.0", "--alias", "other", "--why", "a test"]) == 1
    assert "is the mirror of an MLflow server" in capsys.readouterr().err
    assert FileRegistry(tmp_path / "var" / "mirror").read(name).aliases == {"production": "1.0"}
