"""Who is calling and what they may do: scopes, the roles that grant them, and the caller as a value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType

from auth.errors import InsufficientScope, UnknownScope


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


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated caller, until `expires_at` (UTC).

    `subject` is the user's or the client's id, or another issuer's word for the caller; only users have a role. The
    last fields tell by which credential: a token of ours, of a log-in that lasts, by a client, or an API key.
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
    rate: str | None = None  # the key's own limit

    def require(self, scope: Scope) -> None:
        """Raises InsufficientScope."""
        if scope not in self.scopes:
            raise InsufficientScope(scope)


def select_scopes(granted: frozenset[Scope], asked: str) -> frozenset[Scope]:
    """Read a space-separated request for scopes (RFC 6749, section 3.3); an empty one means all that are granted.

    Raises UnknownScope, even if only one of several is refused.
    """
    words = frozenset(asked.split())
    if not words <= granted:
        raise UnknownScope(f"Only these can be had: {format_scopes(granted) or 'none'}. Ask for these.")
    return parse_scopes(asked) or granted


def format_scopes(scopes: Iterable[Scope]) -> str:
    """Scopes as tokens and rows hold them: sorted, separated by spaces."""
    return " ".join(sorted(scopes))


def parse_scopes(text: str) -> frozenset[Scope]:
    """Raises ValueError for a word that is no scope."""
    return frozenset(Scope(word) for word in text.split())
