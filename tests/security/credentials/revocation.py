"""Requests with an API key, and the wait until a running gateway rejects it."""

from __future__ import annotations

from tests.support.gateway import Gateway
from tests.support.polling import wait_until

# The gateway promises one second; a slow and busy machine may need many more. Without the feed of changes a process
# accepts a key for a minute after its last verification, and a token until it expires, after fifteen minutes.
REVOKED_WITHIN_S = 45.0


def request_me(gateway: Gateway, key: str) -> int:
    """Return the status of a request with an API key."""
    return gateway.get("/v1/me", headers={"X-API-Key": key}).status_code


def assert_soon_rejected(gateway: Gateway, *keys: str) -> None:
    wait_until(lambda: {request_me(gateway, key) for key in keys} == {401}, within_s=REVOKED_WITHIN_S)
