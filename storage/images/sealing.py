"""Encryption of kept images with AES-256-GCM (NIST SP 800-38D).

A sealed image consists of MAGIC, the id of its key (8 bytes), a random nonce (12 bytes) and the ciphertext with its
tag. The tag also covers the owner and the name, so that swapped images are detected.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence

from storage.images.errors import ImageUnreadable

MAGIC = b"ATI1"
KEY_BYTES = 32
_ID_BYTES, _NONCE_BYTES = 8, 12
_HEADER_BYTES = len(MAGIC) + _ID_BYTES


def parse_keys(text: str) -> Sequence[bytes]:
    """Read keys of 32 bytes in base64 (RFC 4648, either alphabet), separated by commas. Raises ValueError."""
    keys = [_decode(part.strip()) for part in text.split(",")]
    if any(len(key) != KEY_BYTES for key in keys):
        raise ValueError("each key must have 32 bytes")
    return keys


def _decode(text: str) -> bytes:
    return base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)


class ImageSeal:
    """Encrypts with the first of the keys, and decrypts with all of them."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._ciphers = {_identify(key): AESGCM(key) for key in keys}
        self._current = _identify(keys[0])

    def seal(self, owner: str, name: str, image: bytes) -> bytes:
        """Return the encrypted image."""
        header, nonce = MAGIC + self._current, os.urandom(_NONCE_BYTES)
        sealed = self._ciphers[self._current].encrypt(nonce, image, _bind(header, owner, name))
        return header + nonce + sealed

    def unseal(self, owner: str, name: str, sealed: bytes) -> bytes:
        """Return the image. Raises ImageUnreadable."""
        from cryptography.exceptions import InvalidTag

        header, rest = sealed[:_HEADER_BYTES], sealed[_HEADER_BYTES:]
        cipher = self._ciphers.get(header[len(MAGIC) :])
        if not header.startswith(MAGIC) or len(rest) < _NONCE_BYTES:
            raise ImageUnreadable(f"The kept image of {name} is incomplete. It stays until its retention ends.")
        if cipher is None:
            raise ImageUnreadable(f"IMAGES__KEY lacks the key of the kept image of {name}. Add it after the others.")
        try:
            return cipher.decrypt(rest[:_NONCE_BYTES], rest[_NONCE_BYTES:], _bind(header, owner, name))
        except InvalidTag:
            raise ImageUnreadable(f"The kept image of {name} was changed. It stays until its retention ends.") from None


def _identify(key: bytes) -> bytes:
    """Return the id of a key, which reveals nothing about the key."""
    return hashlib.sha256(b"atalaya-image-key-1\n" + key).digest()[:_ID_BYTES]


def _bind(header: bytes, owner: str, name: str) -> bytes:
    return header + f"{owner}/{name}".encode()
