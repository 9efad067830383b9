"""What a caller may do with keys."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from typing import Any

import pytest

from auth.api_keys.rules import can_see, check_rotation, restrict_terms
from auth.api_keys.store import ApiKey, KeyTerms
from auth.errors import InsufficientScope, KeyBound
from auth.principal import Principal, Role, Scope

TERMS = KeyTerms("maps", frozenset({Scope.PREDICT}), datetime.now(UTC) + timedelta(days=30))


def _caller(*scopes: Scope, key_id: str | None = None, subject: str = "ana-id") -> Principal:
    return Principal(subject, "ana", Role.CLIENT, frozenset(scopes), None, key_id=key_id)


def _key(key_id: str = "k1", **changes: Any) -> ApiKey:
    return ApiKey(key_id, "ana-id", "ana", replace(TERMS, **changes), datetime.now(UTC), None, None, None)


def test_a_maker_gives_what_it_holds() -> None:
    """Nobody can give a key a scope that the caller does not hold."""
    assert restrict_terms(_caller(Scope.PREDICT), None, TERMS) == TERMS
    with pytest.raises(InsufficientScope, match="predict"):
        restrict_terms(_caller(Scope.KEYS_WRITE), None, TERMS)


@pytest.mark.parametrize(
    "bound",
    [
        {"addresses": (ip_network("::1"),)},
        {"rate": "1/minute"},
        {"monthly_requests": 0},
        {"monthly_megapixels": 5},
    ],
)
def test_a_bound_key_makes_no_other(bound: dict[str, Any]) -> None:
    """A key cannot get round its addresses, rate or quota by making another."""
    with pytest.raises(KeyBound):
        restrict_terms(_caller(Scope.PREDICT, key_id="k1"), _key(**bound), TERMS)


def test_what_a_key_makes_ends_with_it() -> None:
    """A key that a key made ends no later than its maker."""
    soon = datetime.now(UTC) + timedelta(days=1)
    assert restrict_terms(_caller(Scope.PREDICT, key_id="k1"), _key(expires_at=soon), TERMS).expires_at == soon


def test_a_rotation_gains_nothing() -> None:
    """Who rotates holds all that the key may; a key rotates itself alone, and not for longer."""
    check_rotation(_caller(Scope.PREDICT), _key(), extends=True)
    check_rotation(_caller(Scope.PREDICT, key_id="k1"), _key(), extends=False)
    with pytest.raises(InsufficientScope):
        check_rotation(_caller(Scope.KEYS_WRITE), _key(), extends=False)
    with pytest.raises(KeyBound):
        check_rotation(_caller(Scope.PREDICT, key_id="k2"), _key(), extends=False)
    with pytest.raises(KeyBound):
        check_rotation(_caller(Scope.PREDICT, key_id="k1"), _key(), extends=True)


def test_who_sees_a_key() -> None:
    """Its owner sees a key, and who administers users."""
    assert can_see(_caller(), _key())
    assert can_see(_caller(Scope.USERS_ADMIN, subject="root-id"), _key())
    assert not can_see(_caller(Scope.KEYS_WRITE, subject="olga-id"), _key())
