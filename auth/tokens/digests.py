"""Digests under which secrets and names are stored."""

from __future__ import annotations

import hashlib


def hash_text(text: str) -> str:
    """Return the SHA-256 digest in hexadecimal. Use it for random secrets only: passwords need a slow hash.

    The text may contain lone surrogates, as a JSON string can.
    """
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
