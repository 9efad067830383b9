from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from auth.principal import Scope
from auth.tokens.external_issuers import ExternalIssuers
from auth.tokens.issuer_rules import ExternalIssuer
from tests.support.identity_provider import NOW, MakeIssuers

SCOPES = {"land:read": Scope.PREDICT, "land:admin": Scope.MODELS_WRITE}
TLS = ssl.create_default_context()  # reading the certificates takes longer than a test


@pytest.fixture
async def make_issuers(provider: Any) -> AsyncIterator[MakeIssuers]:
    """Trust the provider, with changed rules."""
    async with httpx.AsyncClient(verify=TLS) as client:

        def make(**changes: Any) -> ExternalIssuers:
            rules = {"issuer": provider.issuer, "audience": "atalaya", "scopes": SCOPES, **changes}
            return ExternalIssuers([ExternalIssuer(**rules)], client, lambda: NOW)

        yield make
