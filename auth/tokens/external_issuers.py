"""Access tokens of external issuers (OpenID Connect), verified according to RFC 8725 and RFC 9068."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from auth.authenticator import VerifiedCredential
from auth.errors import InvalidToken, SubjectBarred
from auth.principal import ROLE_SCOPES, Principal, Role, Scope
from auth.tokens.access import check, read_expiry, read_text
from auth.tokens.barred_subjects import subject_target
from auth.tokens.issuer_rules import ExternalIssuer, format_subject
from auth.tokens.jwks import ProviderKeys
from auth.tokens.jws import read_header, read_unverified_claims, verify_claims

if TYPE_CHECKING:
    import httpx

RECHECK_S = 60  # how long a token may be cached, even if the issuer withdraws its key

# Media types without "application/", which may be left out (RFC 7515, section 4.1.9).
_TYPES = frozenset({"at+jwt", "jwt"})
# Keys come from the issuer's own address, never from a token or an address in it.
_FORBIDDEN_HEADERS = frozenset({"jwk", "jku", "x5u", "x5c", "crit", "b64", "zip"})
# Claims that only ID tokens contain (OpenID Connect Core 1.0, sections 2 and 3.3.2.11).
_ID_TOKEN_CLAIMS = frozenset({"nonce", "at_hash", "c_hash"})
_MAX_NAME = 200  # characters


class ExternalIssuers:
    """Verifies tokens of the configured issuers.

    `is_revoked` returns whether a target of the feed of changes is revoked; `clock` returns seconds since 1970,
    `monotonic` monotonic seconds. `on_fetch(issuer, succeeded)` is called for every attempt to fetch an issuer's keys.
    """

    def __init__(
        self,
        issuers: Iterable[ExternalIssuer],
        client: httpx.AsyncClient,
        is_revoked: Callable[[str], bool],
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        on_fetch: Callable[[str, bool], None] = lambda _issuer, _succeeded: None,
    ) -> None:
        self._is_revoked = is_revoked
        self._clock = clock
        self._issuers = {
            issuer.issuer: (
                issuer,
                ProviderKeys(issuer.issuer, issuer.algorithms, client, monotonic, partial(on_fetch, issuer.issuer)),
            )
            for issuer in issuers
        }
        self._names = {name.rstrip("/"): name for name in self._issuers}

    async def close(self) -> None:
        """Cancel running fetches. The caller closes the HTTP client."""
        for _, keys in self._issuers.values():
            await keys.close()

    def accepts(self, credential: str) -> bool:
        """Return whether the credential claims to be from one of the issuers, without verifying it.

        A name that differs only by a final slash is accepted here, so that `verify` can report the difference.
        """
        try:
            return read_text(read_unverified_claims(credential), "iss").rstrip("/") in self._names
        except (ValueError, RecursionError):
            return False

    async def verify(self, token: str) -> VerifiedCredential:
        """Verify a token.

        Raises InvalidToken, ExpiredToken, SubjectBarred, IssuerUnavailable; no message contains the token.
        """
        try:
            issuer, keys = self._find_issuer(read_text(read_unverified_claims(token), "iss"))
            header = read_header(token)
            kid = _check_header(header, issuer)
            claims = await _verify_signature(token, keys, kid, header["alg"])
            principal = self._principal(claims, issuer)
            target = subject_target(issuer.issuer, read_text(claims, "sub"))
        except (ValueError, KeyError, RecursionError):
            raise InvalidToken("This is not a valid access token. Log in again.") from None
        if self._is_revoked(target):
            raise SubjectBarred(principal.subject)
        assert principal.expires_at is not None  # noqa: S101  (read_expiry returned it)
        until = min(principal.expires_at.timestamp(), self._clock() + RECHECK_S)
        return VerifiedCredential(principal, until, frozenset({target}))

    def _find_issuer(self, name: str) -> tuple[ExternalIssuer, ProviderKeys]:
        """Return an issuer and its keys. Raises InvalidToken, KeyError."""
        if name not in self._issuers and name.rstrip("/") in self._names:
            raise InvalidToken(
                "The access token's issuer and the one in AUTH__ISSUERS differ in the final slash. "
                "Ask an administrator to write it there exactly as in the token."
            )
        return self._issuers[name]

    def _principal(self, claims: dict[str, Any], issuer: ExternalIssuer) -> Principal:
        check(claims.get("iss") == issuer.issuer, "issuer")
        check(issuer.audience in _read_values(claims.get(issuer.audience_claim), split=False), "audience")
        # Cognito's ID tokens have none of these claims, but say in `token_use` what they are for.
        check(_ID_TOKEN_CLAIMS.isdisjoint(claims) and claims.get("token_use", "access") == "access", "kind")
        expires = read_expiry(claims, self._clock(), issuer.leeway_s)
        sub = read_text(claims, "sub")
        role = _map_role(claims, issuer)
        return Principal(
            subject=format_subject(issuer.issuer, sub),
            name=_read_label(claims, "name") or sub,
            role=role,
            scopes=_map_scopes(claims, issuer, role),
            expires_at=datetime.fromtimestamp(expires, UTC),
            token_id=_read_label(claims, "jti"),
            logged_in=not _is_service(sub, claims),
        )


async def _verify_signature(token: str, keys: ProviderKeys, kid: str | None, algorithm: str) -> dict[str, Any]:
    """Return the claims. Raises InvalidToken, IssuerUnavailable, ValueError."""
    for key in await keys.find(kid, algorithm):
        check(key.algorithm == algorithm, "header")
        with suppress(ValueError):
            return verify_claims(token, key)
    # Without a key id, only a wrong signature can show that the issuer now uses another key.
    if not keys.has(kid) and await keys.renew():
        for key in await keys.find(kid, algorithm):
            with suppress(ValueError):
                return verify_claims(token, key)
    raise ValueError("signature")


def _check_header(header: Mapping[str, Any], issuer: ExternalIssuer) -> str | None:
    """Return the key id of an acceptable header, if it has one. Raises InvalidToken."""
    # Okta's access tokens have no type; ID tokens are rejected by their audience and by the claims only they contain.
    algorithm, token_type = header.get("alg"), header.get("typ", "JWT")
    acceptable = algorithm in issuer.algorithms and isinstance(token_type, str) and _is_access_token_type(token_type)
    check(acceptable and _FORBIDDEN_HEADERS.isdisjoint(header), "header")
    kid = header.get("kid")
    check("kid" not in header or (isinstance(kid, str) and kid != ""), "key id")
    return kid


def _is_access_token_type(media_type: str) -> bool:
    return media_type.isascii() and media_type.lower().removeprefix("application/") in _TYPES


def _read_label(claims: Mapping[str, Any], claim: str) -> str | None:
    """Return an optional claim that is shown to people, or None if it is not printable text of limited length."""
    value = claims.get(claim)
    return value if isinstance(value, str) and len(value) <= _MAX_NAME and value.isprintable() else None


def _is_service(sub: str, claims: Mapping[str, Any]) -> bool:
    """Whether the token was issued to a service, not a user: its subject is then the client (RFC 9068, section 2.2).

    Okta names the client `cid`, and Auth0 adds "@clients" to the subject.
    """
    return sub.removesuffix("@clients") in (claims.get(name) for name in ("client_id", "azp", "cid"))


def _map_role(claims: Mapping[str, Any], issuer: ExternalIssuer) -> Role | None:
    held = _read_values(claims.get(issuer.roles_claim), split=False) if issuer.roles_claim else frozenset()
    return next((role for value, role in issuer.roles.items() if value in held), issuer.default_role)


def _map_scopes(claims: Mapping[str, Any], issuer: ExternalIssuer, role: Role | None) -> frozenset[Scope]:
    """Return the scopes that the role or the token grants; if the issuer maps both, only scopes that both grant."""
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
