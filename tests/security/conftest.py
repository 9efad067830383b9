from __future__ import annotations

import time
from collections.abc import Iterator

import httpx
import pytest

from tests.support.access_token import FreshToken
from tests.support.gateway import Gateway
from tests.support.paths import FOREST
from tests.support.wire import Wire

MAX_GROWTH_BYTES = 80_000_000
# A request takes milliseconds; one that waits for unbounded work takes minutes.
LIVE_WITHIN_S = 10.0


@pytest.fixture(scope="session")
def fresh_token(gateway: Gateway) -> FreshToken:
    """An access token of `ana` that is renewed before it expires."""
    return gateway.fresh_token()


@pytest.fixture(scope="session")
def wire(gateway: Gateway, fresh_token: FreshToken) -> Wire:
    return Wire(gateway.port, fresh_token)


@pytest.fixture(scope="session")
def caller(gateway: Gateway) -> httpx.Client:
    """A client of `ana`."""
    return gateway.client()


@pytest.fixture
def bounded(gateway: Gateway, caller: httpx.Client) -> Iterator[None]:
    """Fail the test if the gateway takes 80 MB more memory after it, or no longer responds soon."""
    # While it is idle, the gateway releases memory that every prediction needs: read the size after a prediction.
    assert caller.post("/v1/predictions", files={"file": FOREST.read_bytes()}).status_code == 200
    before = gateway.resident_bytes()
    yield
    started = time.monotonic()
    assert gateway.get("/livez").is_success
    assert time.monotonic() - started < LIVE_WITHIN_S
    assert gateway.resident_bytes() - before < MAX_GROWTH_BYTES
