"""The headers that contain a credential."""

from __future__ import annotations

from starlette.requests import Request

from api.errors import BadRequest


def read_header_once(request: Request, name: str) -> str:
    """Return the value of a header, which is empty if there is none. Raises BadRequest if the header is repeated.

    A proxy and the gateway might use different values of a repeated header.
    """
    values = request.headers.getlist(name)
    if len(values) > 1:
        raise BadRequest(f"The request has several headers {name}. Send one.")
    return values[0] if values else ""


def get_credential(request: Request) -> str | None:
    """Return the bearer token if there is one, else the API key. Raises BadRequest."""
    token, key = get_bearer_token(request), read_header_once(request, "X-API-Key")
    return token or key or None


def get_bearer_token(request: Request) -> str | None:
    """Return the token after `Bearer` in the Authorization header (RFC 6750, section 2.1). Raises BadRequest."""
    scheme, _, credential = read_header_once(request, "Authorization").partition(" ")
    return credential.strip() if scheme.lower() == "bearer" else None
