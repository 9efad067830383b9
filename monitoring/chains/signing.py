"""Ed25519 signatures (RFC 8032) of statements: a private key signs, its public key verifies."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Iterable

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from monitoring.errors import BadLedgerKey

_KEY_BYTES = 32


class Signer:
    """Signs with a private key, 32 bytes in base64. Raises BadLedgerKey."""

    def __init__(self, private_key: str) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(_decode_key(private_key))
        raw = self._key.public_key().public_bytes_raw()
        self.public_key = base64.b64encode(raw).decode()
        self.key_id = _compute_key_id(raw)

    def sign(self, statement: str) -> str:
        """Return the signature of the text's UTF-8 bytes, in base64."""
        return base64.b64encode(self._key.sign(statement.encode())).decode()


class Verifier:
    """Verifies signatures with public keys, each 32 bytes in base64. Raises BadLedgerKey."""

    def __init__(self, public_keys: Iterable[str]) -> None:
        self._keys: dict[str, Ed25519PublicKey] = {}
        for key in public_keys:
            self.add(key)

    def add(self, public_key: str) -> None:
        """Also accept signatures of this key. Raises BadLedgerKey."""
        raw = _decode_key(public_key)
        self._keys[_compute_key_id(raw)] = Ed25519PublicKey.from_public_bytes(raw)

    def has_key(self, key_id: str) -> bool:
        return key_id in self._keys

    def is_valid(self, statement: str, key_id: str, signature: str) -> bool:
        """Whether the key with that id has signed the text; only the canonical base64 of a signature is valid."""
        key = self._keys.get(key_id)
        if key is None:
            return False
        try:
            raw = base64.b64decode(signature, validate=True)
            key.verify(raw, statement.encode())
        except (InvalidSignature, binascii.Error, ValueError):
            return False
        return base64.b64encode(raw).decode() == signature


def new_private_key() -> str:
    """Return 32 random bytes in base64."""
    return base64.b64encode(os.urandom(_KEY_BYTES)).decode()


def _decode_key(text: str) -> bytes:
    try:
        raw = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != _KEY_BYTES:
        raise BadLedgerKey
    return raw


def _compute_key_id(raw: bytes) -> str:
    """Return the first 16 hex digits of the public key's SHA-256."""
    return hashlib.sha256(raw).hexdigest()[:16]
