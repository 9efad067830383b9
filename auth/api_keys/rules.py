"""What a caller may do with keys: nobody gains anything by making, rotating or seeing one."""

from __future__ import annotations

from dataclasses import replace

from auth.api_keys.store import ApiKey, KeyTerms
from auth.errors import KeyBound
from auth.principal import Principal, Scope


def can_see(principal: Principal, key: ApiKey) -> bool:
    """Owners see, and revoke, their own keys; who administers users, any."""
    return principal.subject == key.user_id or Scope.USERS_ADMIN in principal.scopes


def restrict_terms(principal: Principal, maker: ApiKey | None, terms: KeyTerms) -> KeyTerms:
    """The terms of a key that `principal` makes, whose own API key, where it came with one, is `maker`.

    Raises InsufficientScope for a scope that the caller does not hold, and KeyBound.
    """
    _require(principal, terms.scopes)
    if maker is None:
        return terms
    bounds = maker.terms
    if bounds.addresses or bounds.rate or bounds.monthly_requests is not None or bounds.monthly_megapixels is not None:
        raise KeyBound("A key with addresses, a rate or a quota cannot make another. Log in to make it.")
    return replace(terms, expires_at=min(terms.expires_at, bounds.expires_at))


def check_rotation(principal: Principal, key: ApiKey, *, extends: bool) -> None:
    """Raises InsufficientScope for a key that may more than the caller, and KeyBound."""
    _require(principal, key.terms.scopes)
    if principal.key_id is not None and (principal.key_id != key.id or extends):
        raise KeyBound("A key can rotate itself alone, and not for longer. Log in for more.")


def _require(principal: Principal, scopes: frozenset[Scope]) -> None:
    for scope in sorted(scopes):
        principal.require(scope)
