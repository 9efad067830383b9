"""What callers may do with API keys."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from typing import Any

import pytest
from msgspec.structs import replace

from auth.api_keys.rules import can_see, check_rotation, restrict_terms
from auth.api_keys.store import ApiKey, KeyTerms
from auth.errors import InsufficientScope, KeyBound
from auth.principal import Principal, Role, Scope

TERMS = KeyTerms("maps", frozenset({Scope.PREDICT}), datetime.now(UTC) + timedelta(days=30))


def _caller(*scopes: Scope, key_id: str | None = None, subject: str = "ana-id") -> Principal:
    return Principal(subject, "ana", Role.CLIENT, frozenset(scopes), None, key_id=key_id)


def _key(key_id: str = "k1", **changes: Any) -> ApiKey:
    return ApiKey(key_id, "ana-id", "ana", replace(TERMS, **changes), datetime.now(UTC), None, None, None)


def test_a_new_key_has_no_scope_that_its_creator_lacks() -> None:
    """Creating a key with a scope that the caller lacks fails."""
    assert restrict_terms(_caller(Scope.PREDICT), None, TERMS) == TERMS
    with pytest.raises(InsufficientScope, match="predict"):
        restrict_terms(_caller(Scope.KEYS_WRITE), None, TERMS)


@pytest.mark.parametrize(
    "restriction",
    [
        {"addresses": (ip_network("::1"),)},
        {"rate": "1/minute"},
        {"monthly_requests": 0},
        {"monthly_megapixels": 5},
    ],
)
def test_a_restricted_key_cannot_create_another(restriction: dict[str, Any]) -> None:
    """A key that is limited to addresses, a rate or a quota cannot evade the limit by creating another key."""
    with pytest.raises(KeyBound):
        restrict_terms(_caller(Scope.PREDICT, key_id="k1"), _key(**restriction), TERMS)


def test_a_key_created_with_a_key_expires_with_it() -> None:
    """A key that is created with another key expires no later than that key."""
    soon = datetime.now(UTC) + timedelta(days=1)
    assert restrict_terms(_caller(Scope.PREDICT, key_id="k1"), _key(expires_at=soon), TERMS).expires_at == soon


def test_a_rotation_grants_no_additional_rights() -> None:
    """The caller needs all scopes of the key; a key can rotate only itself and cannot extend its life."""
    check_rotation(_caller(Scope.PREDICT), _key(), extends=True)
    check_rotation(_caller(Scope.PREDICT, key_id="k1"), _key(), extends=False)
    with pytest.raises(InsufficientScope):
        check_rotation(_caller(Scope.KEYS_WRITE), _key(), extends=False)
    with pytest.raises(KeyBound):
        check_rotation(_caller(Scope.PREDICT, key_id="k2"), _key(), extends=False)
    with pytest.raises(KeyBound):
        check_rotation(_caller(Scope.PREDICT, key_id="k1"), _key(), extends=True)


def test_owners_and_user_administrators_see_a_key() -> None:
    """A key is visible to its owner and to callers who administer users, and to no other caller."""
    assert can_see(_caller(), _key())
    assert can_see(_caller(Scope.USERS_ADMIN, subject="root-id"), _key())
    assert not can_see(_caller(Scope.KEYS_WRITE, subject="olga-id"), _key())
