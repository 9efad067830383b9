"""Access tokens of outside identity providers (OpenID Connect), judged after RFC 8725 and RFC 9068."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from auth.authenticator import VerifiedCredential
from auth.errors import InvalidToken
from auth.principal import ROLE_SCOPES, Principal, Role, Scope
from auth.tokens.access import check, read_expiry, read_text
from auth.tokens.issuer_rules import ExternalIssuer
from auth.tokens.jwks import ProviderKeys
from auth.tokens.jws import read_header, read_unverified_claims, verify_claims

if TYPE_CHECKING:
    import httpx

RECHECK_S = 60  # a key that the provider has withdrawn counts no longer than this, once that is known

_TYPES = frozenset({"at+jwt", "application/at+jwt", "JWT"})
# Keys and their places come from the provider's own address, never from a token.
_REFUSED_HEADERS = frozenset({"jwk", "jku", "x5u", "x5c", "crit", "b64", "zip"})
# What only ID tokens hold (OpenID Connect Core 1.0, sections 2 and 3.3.2.11).
_ID_TOKEN_CLAIMS = frozenset({"nonce", "at_hash", "c_hash"})
_MAX_SUBJECT = 300  # what the columns that hold subjects have room for


class ExternalIssuers:
    """Verifies the tokens of the issuers that are trusted; `clock` tells seconds since 1970."""

    def __init__(
        self,
        trusted: Iterable[ExternalIssuer],
        client: httpx.AsyncClient,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._issuers = {
            issuer.issuer: (issuer, ProviderKeys(issuer.issuer, issuer.algorithms, client, monotonic))
            for issuer in trusted
        }

    async def close(self) -> None:
        """End what is under way; the client is its owner's to close."""
        for _, keys in self._issuers.values():
            await keys.close()

    def accepts(self, credential: str) -> bool:
        """Whether the credential says that it is of one of these issuers; nothing is verified yet."""
        try:
            return read_unverified_claims(credential).get("iss") in self._issuers
        except (ValueError, RecursionError, TypeError):
            return False

    async def verify(self, token: str) -> VerifiedCredential:
        """Raises InvalidToken, ExpiredToken, IssuerUnavailable; none repeats the token."""
        try:
            trusted, keys = self._issuers[read_text(read_unverified_claims(token), "iss")]
            header = read_header(token)
            kid = _judged_kid(header, trusted)
            key = await keys.find(kid)
            check(header["alg"] == key.algorithm, "header")
            principal = self._principal(verify_claims(token, key), trusted)
        except (ValueError, KeyError, RecursionError):
            raise InvalidToken("This is not a valid access token. Log in again.") from None
        assert principal.expires_at is not None  # noqa: S101  (read_expiry has found it)
        until = min(principal.expires_at.timestamp(), self._clock() + RECHECK_S)
        return VerifiedCredential(principal, until, frozenset())

    def _principal(self, claims: dict[str, Any], trusted: ExternalIssuer) -> Principal:
        check(claims.get("iss") == trusted.issuer, "issuer")
        check(trusted.audience in _words(claims.get("aud"), split=False), "audience")
        check(_ID_TOKEN_CLAIMS.isdisjoint(claims), "kind")
        expires = read_expiry(claims, self._clock(), trusted.leeway_s)
        sub, name, token_id = read_text(claims, "sub"), claims.get("name"), claims.get("jti")
        subject = f"{trusted.issuer}|{sub}"
        check(sub != "" and len(subject) <= _MAX_SUBJECT and subject.isprintable(), "subject")
        role = _role(claims, trusted)
        return Principal(
            subject=subject,
            name=name if isinstance(name, str) else sub,
            role=role,
            scopes=_scopes(claims, trusted, role),
            expires_at=datetime.fromtimestamp(expires, UTC),
            token_id=token_id if isinstance(token_id, str) else None,
        )


def _judged_kid(header: Mapping[str, Any], trusted: ExternalIssuer) -> str:
    """The key id of a header that may go on to the signature. Raises InvalidToken."""
    # Okta's access tokens name no type; what keeps ID tokens out is their audience, and the claims only they hold.
    kid, algorithm, kind = header.get("kid"), header.get("alg"), header.get("typ", "JWT")
    acceptable = algorithm in trusted.algorithms and isinstance(kind, str) and kind in _TYPES
    check(acceptable and _REFUSED_HEADERS.isdisjoint(header), "header")
    if not isinstance(kid, str) or not kid:
        raise InvalidToken("The access token names no key. Log in again.")
    return kid


def _role(claims: Mapping[str, Any], trusted: ExternalIssuer) -> Role | None:
    held = _words(claims.get(trusted.roles_claim), split=False) if trusted.roles_claim else frozenset()
    return next((role for word, role in trusted.roles.items() if word in held), trusted.default_role)


def _scopes(claims: Mapping[str, Any], trusted: ExternalIssuer, role: Role | None) -> frozenset[Scope]:
    """What the role grants, or what the token's scopes do; what both do where the issuer gives both."""
    held = _words(claims.get(trusted.scope_claim), split=True)
    of_scopes = frozenset(scope for word, scope in trusted.scopes.items() if word in held)
    of_role = ROLE_SCOPES[role] if role else frozenset()
    if not trusted.roles and trusted.default_role is None:
        return of_scopes
    return of_role & of_scopes if trusted.scopes else of_role


def _words(value: object, *, split: bool) -> frozenset[str]:
    """The words of a claim that is a text or a list of texts; none where it is neither."""
    if isinstance(value, str):
        return frozenset(value.split() if split else [value])
    return frozenset(word for word in value if isinstance(word, str)) if isinstance(value, list) else frozenset()
