"""Tokens of an external issuer at a fixed time, for tests that verify them without a gateway."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from auth.tokens.external_issuers import ExternalIssuers

NOW = 1_800_000_000

MakeIssuers = Callable[..., ExternalIssuers]


def token(provider: Any, key: Any = None, header: dict[str, Any] | None = None, **changes: Any) -> str:
    """Return a token signed by the provider's key, or by `key`."""
    token: str = provider.token(key, header, **{"exp": NOW + 900, "iat": NOW, **changes})
    return token
