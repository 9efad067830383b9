"""Keys, folders and bundles for tests of signatures, including bundles that no honest signer creates."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from model.registry.artefact import SIGNATURE
from model.signing.bundle import sign_payload
from model.signing.keys import PrivateKey, PublicKey

Change = Callable[[dict[str, Any]], object]


def new_key(curve: ec.EllipticCurve | None = None) -> PrivateKey:
    return ec.generate_private_key(curve or ec.SECP256R1())


def private_pem(key: PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def public_pem(key: PublicKey) -> bytes:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def write_files(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write the files by relative path; returns `folder`."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def flip_a_bit(path: Path) -> None:
    """Flip one bit in the middle of the file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def change_bundle(folder: Path, change: Change) -> None:
    """Change the bundle without updating its signature."""
    bundle = json.loads((folder / SIGNATURE).read_bytes())
    change(bundle)
    (folder / SIGNATURE).write_text(json.dumps(bundle))


def read_statement(folder: Path) -> dict[str, Any]:
    bundle = json.loads((folder / SIGNATURE).read_bytes())
    statement: dict[str, Any] = json.loads(b64decode(bundle["dsseEnvelope"]["payload"]))
    return statement


def sign_changed_statement(folder: Path, key: PrivateKey, change: Change) -> None:
    """Change the statement and sign it again, which only the owner of the key can do."""
    statement = read_statement(folder)
    change(statement)
    (folder / SIGNATURE).write_bytes(sign_payload(json.dumps(statement).encode(), key))
