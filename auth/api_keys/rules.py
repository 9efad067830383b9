"""What callers may do with API keys: creating or rotating a key grants no additional rights."""

from __future__ import annotations

from msgspec.structs import replace

from auth.api_keys.store import ApiKey, KeyTerms
from auth.errors import KeyBound
from auth.principal import Principal, Scope


def can_see(principal: Principal, key: ApiKey) -> bool:
    """Return whether the caller may see and revoke the key: owners their own keys, user administrators all keys."""
    return principal.subject == key.user_id or Scope.USERS_ADMIN in principal.scopes


def restrict_terms(principal: Principal, own_key: ApiKey | None, terms: KeyTerms) -> KeyTerms:
    """Return the terms of a key that the caller creates; `own_key` is the caller's API key, if there is one.

    A key created with `own_key` expires no later than the secret that the caller used. Raises InsufficientScope if the
    caller lacks a scope of the terms, and KeyBound if `own_key` is restricted by addresses, a rate or quotas.
    """
    _require(principal, terms.scopes)
    if own_key is None:
        return terms
    own = own_key.terms
    if own.addresses or own.rate or own.monthly_requests is not None or own.monthly_megapixels is not None:
        raise KeyBound("An API key with addresses, a rate or a quota cannot create another. Log in to create one.")
    return replace(terms, expires_at=min(terms.expires_at, principal.expires_at or own.expires_at))


def check_rotation(principal: Principal, key: ApiKey, *, extends: bool) -> None:
    """Check that the caller may rotate the key, and with `extends` also extend it.

    Raises InsufficientScope if the key has scopes that the caller lacks. Raises KeyBound if the caller uses an API key
    and rotates another key or extends its own.
    """
    _require(principal, key.terms.scopes)
    if principal.key_id is not None and (principal.key_id != key.id or extends):
        raise KeyBound("An API key can rotate only itself and cannot extend its life. Log in to do more.")


def _require(principal: Principal, scopes: frozenset[Scope]) -> None:
    for scope in sorted(scopes):
        principal.require(scope)
