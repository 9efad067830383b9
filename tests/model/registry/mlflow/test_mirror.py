"""The mirror of a registered model on a real MLflow server: versions, aliases and rejections."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from model.errors import ArtefactError, DigestMismatch
from model.registry.artefact import MANIFEST
from model.registry.errors import RegistryAccessDenied, RegistryUnavailable, UnknownModel, VersionExists
from model.registry.files import FileRegistry
from model.registry.mlflow.mirror import RETRY_S
from model.registry.mlflow.publishing import publish
from model.registry.mlflow.server import MlflowServer
from model.signing.errors import ArtefactUnsigned
from model.signing.folder import sign_folder
from tests.model.registry.mlflow.conftest import MakeMirror
from tests.model.registry.mlflow.servers import ENVIRONMENT, RunningMlflow, register
from tests.model.registry.versions import GRAPH, write_artefact
from tests.model.signing.forging import new_key
from tests.support.polling import PATIENCE_S

MLFLOW_S_CLIENT = """
import sys
from mlflow import MlflowClient
folder, name, alias = sys.argv[1:]
client = MlflowClient()
client.create_registered_model(name)
run = client.create_run(client.create_experiment(name))
client.log_artifacts(run.info.run_id, folder, "artefact")
version = client.create_model_version(name, f"{run.info.artifact_uri}/artefact", run.info.run_id)
client.set_registered_model_alias(name, alias, version.version)
"""


def test_versions_that_aliases_name_are_copied(
    server: MlflowServer, name: str, make_mirror: MakeMirror, tmp_path: Path
) -> None:
    """Only versions with an alias are copied, and the mirror's aliases point to the same versions as MLflow's."""
    mirror, registry = make_mirror(), FileRegistry(tmp_path / "mirror")
    for version, alias in (("1.0", "production"), ("1.1", None), ("1.2", "candidate")):
        publish(server, write_artefact(tmp_path / version, version, name), None, alias)
    assert mirror.pull().moved == {"production": "1.0", "candidate": "1.2"}
    assert registry.read(name).versions.keys() == {"1.0", "1.2"}
    assert (registry.find_folder(name, "1.2") / "model.onnx").read_bytes() == GRAPH
    assert mirror.pull().moved == {}


def test_aliases_follow_moves_and_removals(
    mlflow: RunningMlflow, server: MlflowServer, name: str, make_mirror: MakeMirror, tmp_path: Path
) -> None:
    """An alias that moves in MLflow moves in the mirror, and one that is removed is removed."""
    mirror = make_mirror()
    for version in ("1.0", "1.1"):
        published = publish(server, write_artefact(tmp_path / version, version, name), None, "production")
    server.post("registered-models/alias", name=name, alias="candidate", version=published.number)
    assert mirror.pull().moved == {"production": "1.1", "candidate": "1.1"}
    server.post("registered-models/alias", name=name, alias="production", version="1")
    mlflow.delete("registered-models/alias", name=name, alias="candidate")
    assert mirror.pull().moved == {"production": "1.0", "candidate": None}
    assert FileRegistry(tmp_path / "mirror").read(name).aliases == {"production": "1.0"}


def test_files_that_cannot_be_downloaded_delay_no_roll_back(
    server: MlflowServer, name: str, make_mirror: MakeMirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the files of one version cannot be downloaded, other aliases still move."""
    mirror, download = make_mirror(), server.download
    for version in ("1.0", "1.1"):
        publish(server, write_artefact(tmp_path / version, version, name), None, "production")
        mirror.pull()
    publish(server, write_artefact(tmp_path / "1.2", "1.2", name), None, "candidate")

    def fail_for_candidate(path: str, target: Path, max_bytes: int) -> None:
        if "-v1.2/" in path:
            raise RegistryAccessDenied("The server responds with 403.")
        download(path, target, max_bytes)

    monkeypatch.setattr(server, "download", fail_for_candidate)
    server.post("registered-models/alias", name=name, alias="production", version="1")
    found = mirror.pull()
    assert (found.moved, list(found.refused)) == ({"production": "1.0"}, ["candidate"])
    assert isinstance(found.refused["candidate"], RegistryAccessDenied)


def test_an_outage_of_another_alias_s_download_delays_no_served_alias(
    server: MlflowServer, name: str, make_mirror: MakeMirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version whose download failed is downloaded at once when a served alias points to it."""
    mirror = make_mirror(clock=lambda: 0.0)
    publish(server, write_artefact(tmp_path / "1.0", "1.0", name), None, "staging")

    def fail(*_: object) -> None:
        raise RegistryUnavailable("The server responds with 503.")

    with monkeypatch.context() as patch:
        patch.setattr(server, "download", fail)
        assert list(mirror.pull().refused) == ["staging"]
    assert list(mirror.pull().refused) == ["staging"]
    server.post("registered-models/alias", name=name, alias="production", version="1")
    assert mirror.pull().moved == {"staging": "1.0", "production": "1.0"}


def test_an_alias_that_moves_after_a_rejection_is_followed_at_once(
    server: MlflowServer, name: str, make_mirror: MakeMirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An alias that moves to another version while its old one is being rejected is followed in the same pull."""
    download = server.download
    for version in ("1.0", "1.1"):
        publish(server, write_artefact(tmp_path / version, version, name), None, "production")
    server.post("registered-models/alias", name=name, alias="production", version="1")

    def move_meanwhile(path: str, target: Path, max_bytes: int) -> None:
        if "-v1.0/" in path:
            server.post("registered-models/alias", name=name, alias="production", version="2")
            raise ArtefactError("It is refused.")
        download(path, target, max_bytes)

    monkeypatch.setattr(server, "download", move_meanwhile)
    found = make_mirror().pull()
    assert (found.moved, found.refused) == ({"production": "1.1"}, {})


def test_rejected_aliases_take_no_requests(
    server: MlflowServer, name: str, make_mirror: MakeMirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pull makes a single request if all missing versions were rejected recently or have an invalid alias name."""
    mirror, get, calls = make_mirror(clock=lambda: 0.0), server.get, list[str]()
    publish(server, write_artefact(tmp_path / "1.0", "1.0", name), None)
    first = read_first_version(server, name)
    for alias in ("empty", "_no_name", "missing"):
        register(server, name, first, alias, source=f"{first['source']}/nothing")
    refused = mirror.pull().refused.keys()

    def count(call: str, **parameters: str) -> Mapping[str, Any]:
        calls.append(call)
        return get(call, **parameters)

    monkeypatch.setattr(server, "get", count)
    assert mirror.pull().refused.keys() == refused == {"empty", "_no_name", "missing"}
    assert calls == ["registered-models/get"]


def test_the_served_version_is_copied_first(
    server: MlflowServer, name: str, make_mirror: MakeMirror, tmp_path: Path
) -> None:
    """Aliases of mirrored versions move first, then served aliases, then the others."""
    mirror = make_mirror()
    publish(server, write_artefact(tmp_path / "1.0", "1.0", name), None, "production")
    mirror.pull()
    publish(server, write_artefact(tmp_path / "1.1", "1.1", name), None, "candidate")
    publish(server, write_artefact(tmp_path / "1.2", "1.2", name), None, "production")
    server.post("registered-models/alias", name=name, alias="stable", version="1")
    assert list(mirror.pull().moved) == ["stable", "production", "candidate"]


def test_a_move_by_another_process_is_not_undone(
    server: MlflowServer, name: str, make_mirror: MakeMirror, tmp_path: Path
) -> None:
    """A pull moves no alias that another process has moved in the meantime."""
    registry = FileRegistry(tmp_path / "mirror")

    def lose_race(targets: Mapping[str, str | None], expected: Mapping[str, str | None]) -> None:
        registry.move_aliases(name, targets, who="another", why="a test")
        registry.move_aliases(name, targets, who="mlflow", why="a test", expected=expected)

    publish(server, write_artefact(tmp_path / "1.0", "1.0", name), None, "production")
    assert make_mirror(move=lose_race).pull().moved == {}
    assert [move.who for move in registry.read(name).unrecorded] == ["another"]


def test_version_that_mlflow_s_client_registered_is_copied(
    mlflow: RunningMlflow, name: str, make_mirror: MakeMirror, tmp_path: Path
) -> None:
    """An artefact that was registered with MLflow's own Python client is mirrored."""
    folder = write_artefact(tmp_path / "artefact", "3.1", name)
    subprocess.run(
        [ENVIRONMENT / "bin" / "python", "-c", MLFLOW_S_CLIENT, folder, name, "production"],
        env=mlflow.client_environment,
        check=True,
        capture_output=True,
        timeout=PATIENCE_S,
    )
    assert make_mirror().pull().moved == {"production": "3.1"}


def test_unknown_model_is_an_error(make_mirror: MakeMirror) -> None:
    """Pulling a model that MLflow does not have raises UnknownModel."""
    with pytest.raises(UnknownModel, match="has no registered model"):
        make_mirror().pull()


def test_tampered_artefact_is_rejected_until_it_is_repaired(
    mlflow: RunningMlflow, server: MlflowServer, name: str, make_mirror: MakeMirror, tmp_path: Path
) -> None:
    """A version with a changed file is rejected and the alias stays; the version is tried again after a minute."""
    times = [0.0]
    mirror = make_mirror(clock=lambda: times[0])
    publish(server, write_artefact(tmp_path / "1.0", "1.0", name), None, "production")
    assert mirror.pull().moved == {"production": "1.0"}
    publish(server, write_artefact(tmp_path / "1.1", "1.1", name), None, "production")
    graph = mlflow.find_file(f"{name}-v1.1", "model.onnx")
    graph.write_bytes(b"a grape")
    for _ in range(2):
        refused = mirror.pull().refused["production"]
        assert isinstance(refused, DigestMismatch)
        assert "version 2 in MLflow" in str(refused)
        graph.write_bytes(GRAPH)
    registry = FileRegistry(tmp_path / "mirror")
    assert (registry.read(name).aliases, list(registry.read(name).versions)) == ({"production": "1.0"}, ["1.0"])
    assert [path.name for path in (tmp_path / "mirror").iterdir() if path.name.startswith(".download")] == []
    times[0] = RETRY_S
    assert mirror.pull().moved == {"production": "1.1"}


def test_larger_file_is_not_downloaded_to_its_end(
    mlflow: RunningMlflow, server: MlflowServer, name: str, make_mirror: MakeMirror, tmp_path: Path
) -> None:
    """A version is rejected if a file is larger than its manifest says."""
    publish(server, write_artefact(tmp_path / "1.0", "1.0", name), None, "production")
    mlflow.find_file(f"{name}-v1.0", "model.onnx").write_bytes(bytes(1 << 20))
    assert f"has more than {len(GRAPH)} bytes" in str(make_mirror().pull().refused["production"])


def test_with_a_key_only_signed_artefacts_are_copied(
    mlflow: RunningMlflow, server: MlflowServer, name: str, make_mirror: MakeMirror, tmp_path: Path
) -> None:
    """With a key, versions that are unsigned, signed with another key or changed after signing are rejected."""
    key, other = new_key(), new_key()
    mirror = make_mirror(key.public_key())
    publish(server, write_artefact(tmp_path / "1.0", "1.0", name), None, "unsigned")
    for version, signer, alias in (("1.1", other, "other"), ("1.2", key, "changed"), ("1.3", key, "signed")):
        sign_folder(write_artefact(tmp_path / version, version, name), signer)
        publish(server, tmp_path / version, None, alias)
    manifest = mlflow.find_file(f"{name}-v1.2", MANIFEST)
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "calibration": {"temperature": 9.0}}))
    found = mirror.pull()
    assert found.moved == {"signed": "1.3"}
    codes = {alias: error.code for alias, error in found.refused.items()}
    assert codes == {"unsigned": "artefact_unsigned", "other": "signature_invalid", "changed": "artefact_changed"}
    with pytest.raises(ArtefactUnsigned):
        publish(server, tmp_path / "1.0", key.public_key())


def test_two_numbers_of_one_artefact_are_one_version(
    server: MlflowServer, name: str, make_mirror: MakeMirror, tmp_path: Path
) -> None:
    """An artefact that was registered twice is mirrored once, with both numbers as tags."""
    publish(server, write_artefact(tmp_path / "1.0", "1.0", name), None, "production")
    register(server, name, read_first_version(server, name), "candidate")
    assert make_mirror().pull().moved == {"production": "1.0", "candidate": "1.0"}
    assert FileRegistry(tmp_path / "mirror").read(name).find("1.0").tags.keys() == {"mlflow.1", "mlflow.2"}


def test_another_artefact_of_a_mirrored_version_is_rejected(
    mlflow: RunningMlflow, server: MlflowServer, name: str, make_mirror: MakeMirror, tmp_path: Path
) -> None:
    """Deleting and recreating a registered model cannot replace the artefact of a mirrored version."""
    mirror = make_mirror()
    publish(server, write_artefact(tmp_path / "1.0", "1.0", name), None, "production")
    assert mirror.pull().moved == {"production": "1.0"}
    mlflow.delete("registered-models/delete", name=name)
    publish(server, write_artefact(tmp_path / "other", "1.0", name, graph=b"other"), None, "production")
    assert isinstance(mirror.pull().refused["production"], VersionExists)


def test_artefact_of_another_model_is_rejected(
    server: MlflowServer, name: str, make_mirror: MakeMirror, tmp_path: Path
) -> None:
    """The manifest must name the registered model that the version belongs to."""
    publish(server, write_artefact(tmp_path / "1.0", "1.0", f"{name}-x"), None)
    server.post("registered-models/create", name=name)
    register(server, name, read_first_version(server, f"{name}-x"), "production")
    refused = make_mirror().pull().refused["production"]
    assert isinstance(refused, ArtefactError)
    assert f"is of the model '{name}-x'" in str(refused)


def test_version_without_an_artefact_is_rejected(
    server: MlflowServer, name: str, make_mirror: MakeMirror, tmp_path: Path
) -> None:
    """A version is rejected if its files are missing, or stored where the server does not serve them."""
    publish(server, write_artefact(tmp_path / "1.0", "1.0", name), None)
    first = read_first_version(server, name)
    register(server, name, first, "empty", source=f"{first['source']}/nothing")
    register(server, name, first, "s3", source="s3://bucket/artefact")
    refused = make_mirror().pull().refused
    assert {type(error) for error in refused.values()} == {ArtefactError}
    assert "is incomplete in MLflow" in str(refused["empty"])
    assert "--serve-artifacts" in str(refused["s3"])


def read_first_version(server: MlflowServer, name: str) -> dict[str, str]:
    version: dict[str, str] = server.get("model-versions/get", name=name, version="1")["model_version"]
    return version
