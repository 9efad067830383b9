"""Threat T53: artefacts that were replaced on their way to the gateway, or on its disk."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from model.backends.onnx import OnnxBackend
from model.backends.open import open_backend
from model.errors import ArtefactError, DigestMismatch
from model.explanation.head import HEAD_FILE
from model.imaging.input_spec import InputSpec
from model.registry.artefact import MANIFEST, SIGNATURE
from model.signing.errors import ArtefactChanged
from model.signing.folder import sign_folder, verify_folder
from model.signing.keys import encode_public_key
from tests.model.backends.tiny_onnx import write_tiny_artefact
from tests.model.signing.forging import flip_a_bit, new_key
from tests.support.gateway import Gateway
from tests.support.paths import ARTEFACT
from tests.support.polling import wait_until

KEY = new_key()


@pytest.fixture
def artefact(tmp_path: Path) -> Path:
    """A small artefact that is signed with KEY."""
    (tmp_path / "tiny").mkdir()
    write_tiny_artefact(tmp_path / "tiny", InputSpec(16, 16), with_head=True)
    sign_folder(tmp_path / "tiny", KEY)
    return tmp_path / "tiny"


def rewrite_manifest(folder: Path) -> None:
    """Change the version in the manifest."""
    document = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**document, "version": "6.6"}))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda folder: (folder / SIGNATURE).unlink(), "is not signed: it has no model.sig"),
        (lambda folder: flip_a_bit(folder / "model.onnx"), r"model\.onnx in .* is not as it was signed"),
        (lambda folder: flip_a_bit(folder / HEAD_FILE), f"{HEAD_FILE} in .* is not as it was signed"),
        (rewrite_manifest, f"{MANIFEST} in .* is not as it was signed"),
        (lambda folder: (folder / "extra.bin").touch(), r"extra\.bin in .* is not signed"),
        (lambda folder: sign_folder(folder, new_key()), "Another key made the signature"),
    ],
    ids=["unsigned", "graph", "head", "manifest", "extra file", "another key"],
)
def test_an_artefact_that_the_key_has_not_signed_is_not_opened(
    artefact: Path, change: Callable[[Path], object], problem: str
) -> None:
    """T53: an artefact that is unsigned, changed or signed with another key is not opened."""
    change(artefact)
    with pytest.raises(ArtefactError, match=problem):
        open_backend(f"onnx://{artefact}", key=KEY.public_key())


def test_production_serves_the_shipped_artefact_and_no_changed_one(
    new_gateway: Callable[..., Gateway], tmp_path: Path
) -> None:
    """T53: without a configured key, production serves the shipped artefact, as in the image, but no changed copy."""
    folder = Path(shutil.copytree(ARTEFACT, tmp_path / "model", ignore=shutil.ignore_patterns("*.keras")))
    gateway = new_gateway(ENVIRONMENT="production", AUTH__ISSUER="https://localhost", MODEL__URL=f"onnx://{folder}")
    assert gateway.get("/readyz").is_success
    flip_a_bit(folder / HEAD_FILE)
    check_no_start(gateway.with_settings(PORT="0", METRICS_PORT=""), f"{HEAD_FILE} in {folder} is not as it was signed")
    (folder / SIGNATURE).unlink()
    check_no_start(gateway.with_settings(PORT="0", METRICS_PORT=""), f"{folder} is not signed")


def check_no_start(gateway: Gateway, problem: str) -> None:
    ended = gateway.run("serve")
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1), ended.stderr
    assert problem in ended.stderr


def test_production_serves_what_the_configured_key_has_signed(
    new_gateway: Callable[..., Gateway], artefact: Path
) -> None:
    """T53: with MODEL__VERIFY_KEY, production serves artefacts signed with that key, and not with the release key."""
    key = encode_public_key(KEY.public_key())
    gateway = new_gateway(
        ENVIRONMENT="production",
        AUTH__ISSUER="https://localhost",
        MODEL__URL=f"onnx://{artefact}",
        MODEL__VERIFY_KEY=key,
    )
    assert gateway.get("/readyz").is_success
    shipped = gateway.with_settings(MODEL__URL=f"onnx://{ARTEFACT}", PORT="0", METRICS_PORT="")
    check_no_start(shipped, "Another key made the signature")


def test_development_serves_an_unsigned_artefact_and_logs_so_once(
    new_gateway: Callable[..., Gateway], artefact: Path
) -> None:
    """T53: without a key, development requires no signature, and logs that once for all workers."""
    (artefact / SIGNATURE).unlink()
    gateway = new_gateway(MODEL__URL=f"onnx://{artefact}", WEB_CONCURRENCY="2")
    wait_until(lambda: gateway.log().count('"worker_ready"') == 2)  # lines are written after a delay
    assert gateway.log().count('"artefact_signature_not_required"') == 1


def test_the_signature_is_verified_before_anything_is_parsed(artefact: Path) -> None:
    """T53: damaged files are rejected for their signature, and not for their contents, before a parser reads them."""
    for name in (MANIFEST, "model.onnx", HEAD_FILE):
        (artefact / name).write_bytes(b"damaged")
    with pytest.raises(ArtefactChanged, match="are not as it was signed"):
        open_backend(f"onnx://{artefact}", key=KEY.public_key())


def test_files_that_change_after_the_verification_are_not_opened(artefact: Path) -> None:
    """T53: a manifest, graph or head that changes after the verification is rejected when it is opened."""
    signed = verify_folder(artefact, KEY.public_key()).files
    for name, error in ((MANIFEST, ArtefactChanged), ("model.onnx", DigestMismatch), (HEAD_FILE, DigestMismatch)):
        original = (artefact / name).read_bytes()
        flip_a_bit(artefact / name)
        with pytest.raises(error, match=name):
            OnnxBackend(artefact, signed=signed)
        (artefact / name).write_bytes(original)
    OnnxBackend(artefact, signed=signed).close()
