"""`atalaya models import`: its output and errors, with a script in place of the Keras environment."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from api.cli import run
from model.registry.files import FileRegistry
from model.signing.folder import verify_folder
from model.signing.keys import encode_public_key
from tests.model.importing.model_files import dense, model, write_hostile, write_keras
from tests.model.signing.forging import new_key, private_pem
from tests.support.gateway import create_database
from tests.support.paths import ARTEFACT

GOLDEN = {
    "images": 20,
    "accuracy": 0.9512,
    "ece": 0.0123,
    "latency_ms": {"images": 20, "median": 24.5, "p95": 31.0},
    "memory_mb": 54.2,
}


@pytest.fixture
def converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Keras environment whose conversion yields the shipped artefact with golden-set results."""
    artefact, program = tmp_path / "converted", tmp_path / "python"
    manifest = json.loads((ARTEFACT / "manifest.json").read_text())
    artefact.mkdir()
    for name in manifest["files"]:
        shutil.copyfile(ARTEFACT / name, artefact / name)
    manifest["figures"]["golden"] = GOLDEN
    (artefact / "manifest.json").write_text(json.dumps(manifest))
    program.write_text(f"#!/bin/sh\ncp -r {artefact} artefact\n")
    program.chmod(0o755)
    monkeypatch.setenv("MODEL__KERAS_PYTHON", str(program))
    return artefact


def import_file(file: Path, out: Path, *options: str) -> int:
    names = ["--name", "efficientnetb0", "--version", "1.1"]
    return run(["models", "import", str(file), *names, "--out", str(out), *options])


@pytest.mark.usefixtures("converted")
def test_import_prints_what_the_golden_set_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command creates the artefact folder, and prints accuracy, latency and memory; --json prints all results."""
    file = write_keras(tmp_path / "model.keras", model(dense()))
    assert import_file(file, tmp_path / "out") == 0
    assert capsys.readouterr().out == (
        f"Imported efficientnetb0-v1.1 to {tmp_path / 'out'}.\n"
        "Accuracy 0.9512, calibration error 0.0123 on 20 images.\n"
        "24.5 ms per image, p95 31 ms; 54.2 MB of memory.\n"
    )
    assert (tmp_path / "out" / "model.onnx").exists()
    assert import_file(file, tmp_path / "second", "--json") == 0
    assert json.loads(capsys.readouterr().out)["golden"] == GOLDEN


@pytest.mark.usefixtures("converted")
def test_hostile_file_is_one_line_on_standard_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A hostile file fails with one line that names the forbidden class, and creates no folder."""
    file = write_hostile("lambda", tmp_path / "evil.keras", tmp_path / "canary")
    assert import_file(file, tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert "is of the class 'keras.layers.Lambda', which is not on the allow-list." in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("converted")
def test_without_out_a_signed_version_is_added_to_the_registry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --out, a signed version is added to the registry without an alias; unsigned or again, it is rejected."""
    key = new_key()
    (tmp_path / "key.pem").write_bytes(private_pem(key))
    create_database(f"sqlite:///{tmp_path}/atalaya.db")
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/atalaya.db")
    monkeypatch.setenv("MODEL__REGISTRY", f"file://{tmp_path}/models")
    monkeypatch.setenv("MODEL__VERIFY_KEY", encode_public_key(key.public_key()))
    file = write_keras(tmp_path / "model.keras", model(dense()))
    command = ["models", "import", str(file), "--name", "efficientnetb0", "--version"]
    assert run([*command, "1.1"]) == 1
    assert "must be signed. Add --key KEY.pem" in capsys.readouterr().err
    assert run([*command, "1.1", "--key", str(tmp_path / "key.pem")]) == 0
    registry = FileRegistry(tmp_path / "models")
    folder = registry.find_folder("efficientnetb0", "1.1")
    assert capsys.readouterr().out.startswith(f"Imported efficientnetb0-v1.1 to {folder}.\n")
    assert verify_folder(folder, key.public_key(), complete=False).files
    assert registry.read("efficientnetb0").aliases == {}
    assert run([*command, "1.1", "--key", str(tmp_path / "key.pem")]) == 1
    assert "efficientnetb0 1.1 already exists" in capsys.readouterr().err
