"""The checks that protect the bytes of a frame: a checksum against accidents, or encryption against people, too.

Encryption is AES-256-GCM (NIST SP 800-38D) with a key that scrypt (RFC 7914) derives from a passphrase. A file has a
salt of its own, so its key encrypts nothing else and frame numbers can serve as nonces.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Protocol

SALT_BYTES = 16
CHECK_BYTES = 16

# As strong as N = 2^17, p = 1 (OWASP Password Storage Cheat Sheet), with a quarter of the memory: 32 MB.
_SCRYPT_N, _SCRYPT_R, _SCRYPT_P = 2**15, 8, 3
_KEY_BYTES = 32
_CHECK_NONCE = b"\xff" * 12  # no frame has this number


class SealBroken(Exception):
    """The bytes are not those that were sealed."""


class Seal(Protocol):
    """Protects frames. `context` is what else a frame depends on; a frame with another one does not open."""

    overhead: int

    def close(self, number: int, context: bytes, data: bytes) -> bytes:
        """Return the protected data, which are `overhead` bytes longer."""

    def open(self, number: int, context: bytes, sealed: bytes) -> bytes:
        """Return the data. Raises SealBroken."""


class Checksum:
    """SHA-256: finds every accidental change, but none by a person who can compute the checksum anew."""

    overhead = hashlib.sha256().digest_size

    def close(self, number: int, context: bytes, data: bytes) -> bytes:
        return data + self._hash(number, context, data)

    def open(self, number: int, context: bytes, sealed: bytes) -> bytes:
        data, found = sealed[: -self.overhead], sealed[-self.overhead :]
        if not hmac.compare_digest(found, self._hash(number, context, data)):
            raise SealBroken
        return data

    def _hash(self, number: int, context: bytes, data: bytes) -> bytes:
        return hashlib.sha256(b"%d:%d:" % (number, len(context)) + context + data).digest()


class Encryption:
    """Encrypts frames with the key of a passphrase and the file's salt of SALT_BYTES."""

    overhead = 16

    def __init__(self, passphrase: str, salt: bytes) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

        scrypt = Scrypt(salt, _KEY_BYTES, _SCRYPT_N, _SCRYPT_R, _SCRYPT_P)
        self._cipher = AESGCM(scrypt.derive(passphrase.encode()))

    def make_check(self, header: bytes) -> bytes:
        """Return CHECK_BYTES that tell a wrong passphrase from changed data. They depend on the header."""
        return self._cipher.encrypt(_CHECK_NONCE, b"", header)

    def close(self, number: int, context: bytes, data: bytes) -> bytes:
        return self._cipher.encrypt(_make_nonce(number), data, context)

    def open(self, number: int, context: bytes, sealed: bytes) -> bytes:
        from cryptography.exceptions import InvalidTag

        try:
            return self._cipher.decrypt(_make_nonce(number), sealed, context)
        except InvalidTag:
            raise SealBroken from None


def _make_nonce(number: int) -> bytes:
    return number.to_bytes(12, "big")
