"""`atalaya models`: sign an artefact and verify its signature."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from api.cli import run
from api.settings import load_settings
from model.imaging.input_spec import InputSpec
from model.registry.artefact import SIGNATURE
from model.signing.folder import verify_folder
from model.signing.keys import encode_public_key, fingerprint
from monitoring.chains.signing import new_private_key
from tests.model.backends.tiny_onnx import write_tiny_artefact
from tests.model.signing.forging import new_key, private_pem
from tests.support.gateway import create_database
from tests.support.paths import ARTEFACT, FOREST, ROOT
from tests.support.requirements import find_program

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `atalaya models …` in an empty folder; returns the status, standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def models(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = run(["models", *arguments])
        return (status, *capsys.readouterr())

    return models


@pytest.fixture
def artefact(tmp_path: Path) -> Path:
    (tmp_path / "tiny").mkdir()
    return write_tiny_artefact(tmp_path / "tiny", InputSpec(16, 16), with_head=True)


def test_the_guide_s_commands_sign_and_verify(
    models: Run, artefact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The openssl commands of the guide create a key that signs an artefact, and the printed setting verifies it."""
    find_program("openssl")
    guide = (ROOT / "docs" / "models" / "sign.md").read_text()
    lines = re.findall(r"^openssl .+$", guide, re.MULTILINE)
    assert len(lines) == 2
    for line in lines:
        subprocess.run(line.split(), cwd=tmp_path, check=True, capture_output=True)
    status, setting, note = models("sign", "tiny", "--key", "model-key.pem")
    assert (status, note) == (0, "tiny/model.sig signs 3 files. The gateway verifies it with:\n")
    name, _, value = setting.strip().partition("=")
    monkeypatch.setenv(name, value)
    key = load_settings().artefact_key()
    assert key is not None
    assert verify_folder(artefact, key).files.keys() == {"head.npz", "manifest.json", "model.onnx"}
    verified = (0, f"The signature is valid: 3 files, key {fingerprint(key)}.\n", "")
    assert models("verify", "tiny", "--key", "model-key.pub") == models("verify", "tiny") == verified


def test_documents_list_the_signed_files(models: Run, artefact: Path, tmp_path: Path) -> None:
    """With --json, both commands print the digests of the signed files."""
    (tmp_path / "key.pem").write_bytes(private_pem(new_key()))
    signed = json.loads(models("sign", "tiny", "--key", "key.pem", "--json")[1])
    (tmp_path / "key.pub").write_text(signed["verify_key"])
    verified = json.loads(models("verify", "tiny", "--key", "key.pub", "--json")[1])
    assert signed["signature"] == f"tiny/{SIGNATURE}"
    assert signed["files"] == verified["files"] == {**signed["files"]}
    assert (artefact / SIGNATURE).exists()


def test_an_artefact_that_differs_from_its_manifest_is_not_signed(models: Run, artefact: Path, tmp_path: Path) -> None:
    """`models sign` rejects an artefact that differs from its manifest, and leaves an earlier signature unchanged."""
    (tmp_path / "key.pem").write_bytes(private_pem(new_key()))
    content = (artefact / "model.onnx").read_bytes()
    (artefact / "model.onnx").write_bytes(b"another graph")
    status, _, problem = models("sign", "tiny", "--key", "key.pem")
    assert (status, "differs from its manifest" in problem) == (1, True)
    assert not (artefact / SIGNATURE).exists()
    (artefact / "model.onnx").write_bytes(content)
    assert models("sign", "tiny", "--key", "key.pem")[0] == 0
    signature = (artefact / SIGNATURE).read_bytes()
    (artefact / "model.onnx").write_bytes(b"another graph")
    assert models("sign", "tiny", "--key", "key.pem")[0] == 1
    assert (artefact / SIGNATURE).read_bytes() == signature


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("sign", "tiny", "--key", "nowhere.pem"), "nowhere.pem cannot be read: no such file or directory"),
        (("sign", "tiny", "--key", "tiny/manifest.json"), "tiny/manifest.json: It is not a private key in PEM"),
        (("sign", "nowhere", "--key", "key.pem"), "nowhere/manifest.json is missing"),
        (("verify", "tiny", "--key", "key.pem"), "key.pem: It is a private key. Export the public key: openssl pkey"),
        (("verify", "tiny"), "tiny is not signed: it has no model.sig"),
        (("verify", "nowhere"), "nowhere is not a folder. To verify a model of the registry, add its version or @"),
    ],
)
def test_problems_are_one_line_that_says_what_to_do(
    models: Run, artefact: Path, tmp_path: Path, arguments: tuple[str, ...], problem: str
) -> None:
    """A missing or wrong key, what is not an artefact folder, and a missing signature each fail with one line."""
    (tmp_path / "key.pem").write_bytes(private_pem(new_key()))
    status, _, error = models(*arguments)
    assert artefact.exists()
    assert (status, error.count("\n")) == (1, 1), error
    assert problem in error
    assert "BEGIN" not in error


def test_an_artefact_without_its_training_file_is_added_and_verified(
    models: Run, artefact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`add`, `promote` and `verify` accept an absent model.keras; `verify` fails when model.onnx is absent."""
    create_database(f"sqlite:///{tmp_path}/var/atalaya.db")
    monkeypatch.setenv("LEDGER__SIGNING_KEY", new_private_key())
    monkeypatch.setenv("MODEL__REGISTRY", f"file://{tmp_path}/registry")
    (tmp_path / "key.pem").write_bytes(private_pem(new_key()))
    manifest = json.loads((artefact / "manifest.json").read_text())
    manifest["files"]["model.keras"] = {"sha256": hashlib.sha256(b"weights").hexdigest(), "bytes": 7}
    (artefact / "manifest.json").write_text(json.dumps(manifest))
    (artefact / "model.keras").write_bytes(b"weights")
    verify_key = json.loads(models("sign", "tiny", "--key", "key.pem", "--json")[1])["verify_key"]
    monkeypatch.setenv("MODEL__VERIFY_KEY", verify_key)
    (artefact / "model.keras").unlink()
    lacks = "The folder lacks model.keras, which serving does not need."
    assert lacks in models("add", "tiny")[1]
    assert models("promote", "tiny", "1.0", "--why", "new")[0] == 0
    for target in (("tiny",), ("tiny", "1.0")):
        status, out, _ = models("verify", *target)
        assert (status, out.startswith("The signature is valid: 3 files"), lacks in out) == (0, True, True)
    assert json.loads(models("verify", "tiny", "--json")[1])["absent"] == ["model.keras"]
    (artefact / "model.onnx").unlink()
    status, _, problem = models("verify", "tiny")
    assert (status, "model.onnx cannot be read" in problem) == (1, True)


def test_the_shipped_artefact_is_signed_with_the_release_key(models: Run) -> None:
    """`verify` without a key uses the release key, which has signed the shipped artefact."""
    assert models("verify", str(ARTEFACT))[0] == 0


@pytest.mark.parametrize("command", [("predict", str(FOREST)), ("evaluate", "--data", ".")])
def test_commands_open_only_signed_models_where_the_gateway_would(
    artefact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: Any
) -> None:
    """With a configured key, and in production, `predict` and `evaluate` reject an unsigned artefact."""
    monkeypatch.chdir(tmp_path)
    key = encode_public_key(new_key().public_key())
    for name, value in (("MODEL__VERIFY_KEY", key), ("ENVIRONMENT", "production")):
        with monkeypatch.context() as setting:
            setting.setenv(name, value)
            assert run([*command, "--model", str(artefact)]) == 1
        assert "is not signed" in capsys.readouterr().err
