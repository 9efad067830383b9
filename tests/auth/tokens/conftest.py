from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Collection
from typing import Any

import httpx
import pytest

from auth.principal import Scope
from auth.tokens.external_issuers import ExternalIssuers
from auth.tokens.issuer_rules import ExternalIssuer
from tests.support.polling import PATIENCE_S
from tests.support.servers.identity_provider import NOW, MakeIssuers

SCOPES = {"land:read": Scope.PREDICT, "land:admin": Scope.MODELS_WRITE}
TLS = ssl.create_default_context()  # shared, because loading the certificates takes longer than a test


@pytest.fixture(autouse=True)
def patient_fetches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a fetch take longer than the product does: the tests' provider may be slow on a busy machine."""
    monkeypatch.setattr("auth.tokens.jwks.TIMEOUT_S", PATIENCE_S)


@pytest.fixture
def clock() -> list[float]:
    """A list of one item, the monotonic time in seconds, which a test may change."""
    return [1000.0]


@pytest.fixture
async def make_issuers(provider: Any, clock: list[float]) -> AsyncIterator[MakeIssuers]:
    """A factory of `ExternalIssuers` that trust the provider, by rules that a test may change."""
    async with httpx.AsyncClient(verify=TLS, timeout=PATIENCE_S) as client:

        def make(*, revoked: Collection[str] = (), **changes: Any) -> ExternalIssuers:
            rules = {"issuer": provider.issuer, "audience": "atalaya", "scopes": SCOPES, **changes}
            return ExternalIssuers(
                [ExternalIssuer(**rules)], client, revoked.__contains__, lambda: NOW, lambda: clock[0]
            )

        yield make
