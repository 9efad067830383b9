"""Who is calling and what they may do: scopes, the roles that grant them, and the caller as a value."""

from __future__ import annotations

from collections.abc import Mapping
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
    """An authenticated caller, until `expires_at` (UTC). `subject` is the user's id."""

    subject: str
    name: str
    role: Role
    scopes: frozenset[Scope]
    expires_at: datetime

    def require(self, scope: Scope) -> None:
        """Raises InsufficientScope."""
        if scope not in self.scopes:
            raise InsufficientScope(scope)


def granted_scopes(role: Role, asked: str) -> frozenset[Scope]:
    """Read a space-separated request for scopes (RFC 6749, section 3.3); an empty one means all of the role's.

    Raises UnknownScope, even if only one of several is refused.
    """
    granted = ROLE_SCOPES[role]
    words = frozenset(asked.split())
    if not words <= granted:
        raise UnknownScope(f"The role {role} grants only: {' '.join(sorted(granted))}. Ask for these.")
    return frozenset(Scope(word) for word in words) or granted
