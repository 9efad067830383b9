"""Scopes, the roles that grant them, and the authenticated caller as a value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType

from msgspec import Struct

from auth.errors import InsufficientScope, KeyBound, LoginRequired, UnknownScope


class Scope(StrEnum):
    PREDICT = "predict"
    PREDICTIONS_READ = "predictions:read"
    MODELS_READ = "models:read"
    MODELS_WRITE = "models:write"
    KEYS_WRITE = "keys:write"
    USERS_ADMIN = "users:admin"
    AUDIT_READ = "audit:read"
    METRICS_READ = "metrics:read"


class Role(StrEnum):
    ADMIN = "admin"
    OPERATOR = "operator"
    AUDITOR = "auditor"
    CLIENT = "client"


ROLE_SCOPES: Mapping[Role, frozenset[Scope]] = MappingProxyType(
    {
        Role.ADMIN: frozenset(Scope),
        Role.OPERATOR: frozenset({Scope.MODELS_READ, Scope.MODELS_WRITE, Scope.METRICS_READ, Scope.AUDIT_READ}),
        Role.AUDITOR: frozenset({Scope.AUDIT_READ, Scope.METRICS_READ}),
        Role.CLIENT: frozenset({Scope.PREDICT, Scope.PREDICTIONS_READ, Scope.KEYS_WRITE}),
    }
)


class Principal(Struct, frozen=True):
    """An authenticated caller, whose credential expires at `expires_at` (UTC).

    `subject` is the id of a user or a client, or `issuer|subject` for a caller of an external issuer; clients have no
    role. The optional ids identify the credential: the access token, its session and its client, or the API key, with
    the digest of the secret that the caller used.
    `logged_in` is true for the token of a user who logged in, here or at an external issuer.
    """

    subject: str
    name: str
    role: Role | None
    scopes: frozenset[Scope]
    expires_at: datetime | None
    token_id: str | None = None
    session_id: str | None = None
    client_id: str | None = None
    key_id: str | None = None
    key_digest: str | None = None
    rate: str | None = None  # the API key's own rate limit
    logged_in: bool = False

    def require(self, scope: Scope) -> None:
        """Check that the caller has the scope. Raises InsufficientScope."""
        if scope not in self.scopes:
            raise InsufficientScope(scope)

    def require_login(self) -> None:
        """Check that the caller may change credentials and roles: API keys, clients and certificates may not.

        These credentials are valid for months and often stored in files. Whoever steals one must not be able to create
        access that outlives it. Raises KeyBound for an API key, else LoginRequired.
        """
        if self.key_id is not None:
            raise KeyBound("This request needs the token of a user, not an API key. Log in as a user and repeat it.")
        if not self.logged_in:
            raise LoginRequired


def select_scopes(granted: frozenset[Scope], requested: str) -> frozenset[Scope]:
    """Parse a space-separated request for scopes (RFC 6749, section 3.3); an empty request means all granted scopes.

    Raises UnknownScope if any requested scope is not granted.
    """
    if not frozenset(requested.split()) <= granted:
        raise UnknownScope(f"Only these scopes are available: {format_scopes(granted) or 'none'}. Request one of them.")
    return parse_scopes(requested) or granted


def format_scopes(scopes: Iterable[Scope]) -> str:
    """Return the scopes sorted and separated by spaces, as in tokens and rows."""
    return " ".join(sorted(scopes))


def parse_scopes(text: str) -> frozenset[Scope]:
    """Parse scopes separated by spaces. Raises ValueError for an unknown scope."""
    return frozenset(Scope(scope) for scope in text.split())
