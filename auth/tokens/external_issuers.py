"""Access tokens of external issuers (OpenID Connect), verified according to RFC 8725 and RFC 9068."""

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

RECHECK_S = 60  # how long a token may be cached, so that a key that the issuer withdrew is no longer used

_TYPES = frozenset({"at+jwt", "application/at+jwt", "JWT"})
# Keys come from the issuer's own address, never from a token or an address in it.
_FORBIDDEN_HEADERS = frozenset({"jwk", "jku", "x5u", "x5c", "crit", "b64", "zip"})
# Claims that only ID tokens contain (OpenID Connect Core 1.0, sections 2 and 3.3.2.11).
_ID_TOKEN_CLAIMS = frozenset({"nonce", "at_hash", "c_hash"})
_MAX_SUBJECT = 300  # characters in the database columns for subjects


class ExternalIssuers:
    """Verifies tokens of the configured issuers; `clock` returns seconds since 1970, `monotonic` monotonic seconds."""

    def __init__(
        self,
        issuers: Iterable[ExternalIssuer],
        client: httpx.AsyncClient,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._issuers = {
            issuer.issuer: (issuer, ProviderKeys(issuer.issuer, issuer.algorithms, client, monotonic))
            for issuer in issuers
        }

    async def close(self) -> None:
        """Cancel running fetches. The caller closes the HTTP client."""
        for _, keys in self._issuers.values():
            await keys.close()

    def accepts(self, credential: str) -> bool:
        """Return whether the credential claims to be from one of the issuers, without verifying it."""
        try:
            return read_unverified_claims(credential).get("iss") in self._issuers
        except (ValueError, RecursionError, TypeError):
            return False

    async def verify(self, token: str) -> VerifiedCredential:
        """Verify a token. Raises InvalidToken, ExpiredToken, IssuerUnavailable; no message contains the token."""
        try:
            issuer, keys = self._issuers[read_text(read_unverified_claims(token), "iss")]
            header = read_header(token)
            kid = _check_header(header, issuer)
            key = await keys.find(kid)
            check(header["alg"] == key.algorithm, "header")
            principal = self._principal(verify_claims(token, key), issuer)
        except (ValueError, KeyError, RecursionError):
            raise InvalidToken("This is not a valid access token. Log in again.") from None
        assert principal.expires_at is not None  # noqa: S101  (read_expiry returned it)
        until = min(principal.expires_at.timestamp(), self._clock() + RECHECK_S)
        return VerifiedCredential(principal, until, frozenset())

    def _principal(self, claims: dict[str, Any], issuer: ExternalIssuer) -> Principal:
        check(claims.get("iss") == issuer.issuer, "issuer")
        check(issuer.audience in _read_values(claims.get("aud"), split=False), "audience")
        check(_ID_TOKEN_CLAIMS.isdisjoint(claims), "kind")
        expires = read_expiry(claims, self._clock(), issuer.leeway_s)
        sub, name, token_id = read_text(claims, "sub"), claims.get("name"), claims.get("jti")
        subject = f"{issuer.issuer}|{sub}"
        check(sub != "" and len(subject) <= _MAX_SUBJECT and subject.isprintable(), "subject")
        role = _map_role(claims, issuer)
        return Principal(
            subject=subject,
            name=name if isinstance(name, str) else sub,
            role=role,
            scopes=_map_scopes(claims, issuer, role),
            expires_at=datetime.fromtimestamp(expires, UTC),
            token_id=token_id if isinstance(token_id, str) else None,
            logged_in=not _is_service(sub, claims),
        )


def _check_header(header: Mapping[str, Any], issuer: ExternalIssuer) -> str:
    """Return the key id of an acceptable header. Raises InvalidToken."""
    # Okta's access tokens have no type; ID tokens are rejected by their audience and by the claims only they contain.
    kid, algorithm, token_type = header.get("kid"), header.get("alg"), header.get("typ", "JWT")
    acceptable = algorithm in issuer.algorithms and isinstance(token_type, str) and token_type in _TYPES
    check(acceptable and _FORBIDDEN_HEADERS.isdisjoint(header), "header")
    if not isinstance(kid, str) or not kid:
        raise InvalidToken("The access token has no key id. Log in again.")
    return kid


def _is_service(sub: str, claims: Mapping[str, Any]) -> bool:
    """Whether the token was issued to a service for its own secret: its subject is then the client (RFC 9068, 2.2).

    Okta names the client `cid`, and Auth0 adds "@clients" to the subject.
    """
    return sub.removesuffix("@clients") in (claims.get(name) for name in ("client_id", "azp", "cid"))


def _map_role(claims: Mapping[str, Any], issuer: ExternalIssuer) -> Role | None:
    held = _read_values(claims.get(issuer.roles_claim), split=False) if issuer.roles_claim else frozenset()
    return next((role for value, role in issuer.roles.items() if value in held), issuer.default_role)


def _map_scopes(claims: Mapping[str, Any], issuer: ExternalIssuer, role: Role | None) -> frozenset[Scope]:
    """Return the scopes that the role grants, or those of the token; if the issuer maps both, those in both."""
    held = _read_values(claims.get(issuer.scope_claim), split=True)
    from_scopes = frozenset(scope for value, scope in issuer.scopes.items() if value in held)
    from_role = ROLE_SCOPES[role] if role else frozenset()
    if not issuer.roles and issuer.default_role is None:
        return from_scopes
    return from_role & from_scopes if issuer.scopes else from_role


def _read_values(value: object, *, split: bool) -> frozenset[str]:
    """Return the values of a claim that is a string or a list of strings; none for any other claim."""
    if isinstance(value, str):
        return frozenset(value.split() if split else [value])
    return frozenset(item for item in value if isinstance(item, str)) if isinstance(value, list) else frozenset()
