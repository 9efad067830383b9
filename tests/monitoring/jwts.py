"""JSON Web Tokens to be redacted."""

from __future__ import annotations

import base64
import json
import secrets


def make_jwt() -> str:
    """Generate three base64url parts at run time, so that the source contains no token."""
    header = json.dumps({"alg": "ES256", "kid": secrets.token_hex(4), "typ": "at+jwt"}).encode()
    parts = (header, json.dumps({"sub": secrets.token_hex(8)}).encode(), secrets.token_bytes(64))
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)
