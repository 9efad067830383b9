"""Protect the frames of a backup: with a checksum against damage, or with encryption against manipulation too.

Encryption is AES-256-GCM (NIST SP 800-38D) with a key that scrypt (RFC 7914) derives from a passphrase. Each file has
its own salt, and therefore its own key, so frame numbers can serve as nonces.
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
    """The bytes differ from those that were sealed."""


class Seal(Protocol):
    """Protects frames. `context` is not stored: `unseal` needs the same number and context that `seal` was given."""

    overhead: int

    def seal(self, number: int, context: bytes, data: bytes) -> bytes:
        """Return the protected data, `overhead` bytes longer than `data`."""

    def unseal(self, number: int, context: bytes, sealed: bytes) -> bytes:
        """Return the data. Raises SealBroken."""


class Checksum:
    """SHA-256: detects accidental changes, but not those of an attacker, who can recompute the checksum."""

    overhead = hashlib.sha256().digest_size

    def seal(self, number: int, context: bytes, data: bytes) -> bytes:
        return data + self._hash(number, context, data)

    def unseal(self, number: int, context: bytes, sealed: bytes) -> bytes:
        data, checksum = sealed[: -self.overhead], sealed[-self.overhead :]
        if not hmac.compare_digest(checksum, self._hash(number, context, data)):
            raise SealBroken
        return data

    def _hash(self, number: int, context: bytes, data: bytes) -> bytes:
        return hashlib.sha256(b"%d:%d:" % (number, len(context)) + context + data).digest()


class Encryption:
    """Encrypts frames with a key derived from a passphrase and the file's salt of SALT_BYTES."""

    overhead = 16

    def __init__(self, passphrase: str, salt: bytes) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

        scrypt = Scrypt(salt, _KEY_BYTES, _SCRYPT_N, _SCRYPT_R, _SCRYPT_P)
        self._cipher = AESGCM(scrypt.derive(passphrase.encode()))

    def make_check(self, header: bytes) -> bytes:
        """Return CHECK_BYTES that distinguish a wrong passphrase from changed data. They also cover the header."""
        return self._cipher.encrypt(_CHECK_NONCE, b"", header)

    def seal(self, number: int, context: bytes, data: bytes) -> bytes:
        return self._cipher.encrypt(_make_nonce(number), data, context)

    def unseal(self, number: int, context: bytes, sealed: bytes) -> bytes:
        from cryptography.exceptions import InvalidTag

        try:
            return self._cipher.decrypt(_make_nonce(number), sealed, context)
        except InvalidTag:
            raise SealBroken from None


def _make_nonce(number: int) -> bytes:
    return number.to_bytes(12, "big")
