"""Find the caller to whom a request's rate limits apply."""

from __future__ import annotations

from starlette.requests import Request

from auth.networks import client_network


def caller_subject(request: Request) -> str:
    """Return the subject of the authenticated principal."""
    subject: str = request.scope["state"]["principal"].subject
    return subject


def caller_key_id(request: Request) -> str:
    """Return the id of the API key that authenticated the request."""
    key_id: str = request.scope["state"]["principal"].key_id
    return key_id


def caller_address(request: Request) -> str:
    """Return the client's address; behind a trusted proxy, TrustedProxies has set it from the proxy's header."""
    client = request.scope.get("client")
    address: str = client[0] if client else "unknown"
    return address


def caller_network(request: Request) -> str:
    """Return the client's address, or its network for IPv6, where one client has a whole network of addresses."""
    return client_network(caller_address(request))
