from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Collection
from typing import Any

import httpx
import pytest

from auth.principal import Scope
from auth.tokens.external_issuers import ExternalIssuers
from auth.tokens.issuer_rules import ExternalIssuer
from tests.support.servers.identity_provider import NOW, MakeIssuers

SCOPES = {"land:read": Scope.PREDICT, "land:admin": Scope.MODELS_WRITE}
TLS = ssl.create_default_context()  # reading the certificates takes longer than a test


@pytest.fixture
def clock() -> list[float]:
    """The monotonic time in seconds, as the only item, which the test may change."""
    return [1000.0]


@pytest.fixture
async def make_issuers(provider: Any, clock: list[float]) -> AsyncIterator[MakeIssuers]:
    """Trust the provider, with changed rules."""
    async with httpx.AsyncClient(verify=TLS) as client:

        def make(*, revoked: Collection[str] = (), **changes: Any) -> ExternalIssuers:
            rules = {"issuer": provider.issuer, "audience": "atalaya", "scopes": SCOPES, **changes}
            return ExternalIssuers(
                [ExternalIssuer(**rules)], client, revoked.__contains__, lambda: NOW, lambda: clock[0]
            )

        yield make
