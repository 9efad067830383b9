"""Digests that are stored instead of secrets and names."""

from __future__ import annotations

import hashlib


def hash_text(text: str) -> str:
    """Return the SHA-256 digest in hexadecimal. Do not use it for passwords, which need a slow hash.

    The text may contain lone surrogates, as a JSON string can.
    """
    return digest_text(text).hex()


def digest_text(text: str) -> bytes:
    """Return the digest of `hash_text` as 32 bytes, which take less memory as a key."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
