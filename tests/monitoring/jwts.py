"""JSON Web Tokens to be redacted."""

from __future__ import annotations

import secrets

from tests.support.servers.identity_provider import encode_part


def make_jwt() -> str:
    """Generate three base64url parts at run time, so that the source contains no token."""
    header = encode_part({"alg": "ES256", "kid": secrets.token_hex(4), "typ": "at+jwt"})
    claims = encode_part({"sub": secrets.token_hex(8)})
    return f"{header}.{claims}.{encode_part(secrets.token_bytes(64))}"
