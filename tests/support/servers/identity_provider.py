"""A minimal OpenID provider on loopback whose documents and tokens a test controls."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from auth.tokens.external_issuers import ExternalIssuers
from auth.tokens.jws import SigningKey, generate_signing_key, load_signing_key

NOW = 1_800_000_000  # for tests that verify tokens without a gateway, at a fixed time

MakeIssuers = Callable[..., ExternalIssuers]


class IdentityProvider(ThreadingHTTPServer):
    """Serves `documents` by path; `fetched` lists the paths that were requested."""

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _DocumentHandler)
        self.issuer = f"http://127.0.0.1:{self.server_port}"
        self.fetched: list[str] = []
        self.documents: dict[str, Any] = {}
        self.rotate()

    def rotate(self) -> None:
        """Replace the signing key, and publish only the new one."""
        self.key = load_signing_key("ES256", generate_signing_key("ES256"))
        metadata = {"issuer": self.issuer, "jwks_uri": f"{self.issuer}/jwks"}
        jwks = {"keys": [self.key.public_jwk()]}
        self.documents = {"/.well-known/openid-configuration": metadata, "/jwks": jwks}

    def token(self, key: SigningKey | None = None, header: dict[str, Any] | None = None, **changes: Any) -> str:
        """Return an access token with changed claims, signed with the published key or with another.

        A claim or header member whose value is `...` is left out.
        """
        key, now = key or self.key, int(time.time())
        protected = {"alg": "ES256", "kid": self.key.kid, "typ": "at+jwt", **(header or {})}
        required = {"iss": self.issuer, "aud": "atalaya", "exp": now + 900, "iat": now, "sub": "ada"}
        claims = {**required, "scope": "land:read", **changes}
        message = f"{encode_part(protected)}.{encode_part(claims)}"
        return f"{message}.{encode_part(key.private.sign(message.encode()))}"


def token(provider: IdentityProvider, key: Any = None, header: dict[str, Any] | None = None, **changes: Any) -> str:
    """Return a token that is valid at NOW, signed by the provider's key, or by `key`."""
    return provider.token(key, header, **{"exp": NOW + 900, "iat": NOW, **changes})


def encode_part(part: dict[str, Any] | str | bytes) -> str:
    """Encode bytes, text, or JSON without members that are `...`, as base64url without padding: a part of a JWS.

    Text can be JSON that no dictionary can express.
    """
    if isinstance(part, dict):
        part = json.dumps({name: value for name, value in part.items() if value is not ...})
    if isinstance(part, str):
        part = part.encode()
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


class _DocumentHandler(BaseHTTPRequestHandler):
    server: IdentityProvider

    def do_GET(self) -> None:
        self.server.fetched.append(self.path)
        document = self.server.documents.get(self.path)
        self.send_response(404 if document is None else 200)
        self.end_headers()
        self.wfile.write(document if isinstance(document, bytes) else json.dumps(document).encode())

    def log_message(self, *_: object) -> None:
        """Write no access log."""
