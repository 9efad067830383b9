"""The reference implementation, `model_signing` by Sigstore, and this one accept each other's signatures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from model.registry.artefact import SIGNATURE
from model.signing.errors import ArtefactChanged
from model.signing.folder import sign_folder, verify_folder
from tests.model.signing.forging import new_key, private_pem, public_pem, write_files
from tests.support.polling import PATIENCE_S

FILES = {"model.onnx": b"graph", "manifest.json": b"{}", "a/b.txt": b"nested", "a-b.txt": b"", "a.txt": b"\xff"}


def run_reference(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "model_signing", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)


def test_the_reference_verifies_our_signature(tmp_path: Path) -> None:
    """`model_signing verify key` accepts a folder that this code has signed, and rejects it when a file has changed."""
    folder, key, pem = write_files(tmp_path / "model", FILES), new_key(), tmp_path / "key.pub"
    sign_folder(folder, key)
    pem.write_bytes(public_pem(key.public_key()))
    command = ("verify", "key", "--signature", folder / SIGNATURE, "--public_key", pem, folder)
    accepted = run_reference(*command)
    assert (accepted.returncode, accepted.stderr) == (0, ""), accepted
    assert "Verification succeeded" in accepted.stdout
    write_files(folder, {"a/b.txt": b"Nested"})
    assert "Hash mismatch for 'a/b.txt'" in run_reference(*command).stderr


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: str(curve.name))
def test_we_verify_the_signature_of_the_reference(tmp_path: Path, curve: ec.EllipticCurve) -> None:
    """A folder signed by `model_signing sign key` verifies until a file changes that the signer did not ignore."""
    folder, key, pem = write_files(tmp_path / "model", {**FILES, "notes.txt": b"x"}), new_key(curve), tmp_path / "key"
    pem.write_bytes(private_pem(key))
    ignored = ("--ignore-paths", folder / "notes.txt")
    signed = run_reference("sign", "key", *ignored, "--signature", folder / SIGNATURE, "--private_key", pem, folder)
    assert signed.returncode == 0, signed
    write_files(folder, {"notes.txt": b"changed"})
    assert verify_folder(folder, key.public_key()).files.keys() == FILES.keys()
    write_files(folder, {"model.onnx": b"another graph"})
    with pytest.raises(ArtefactChanged, match=r"model\.onnx"):
        verify_folder(folder, key.public_key())
