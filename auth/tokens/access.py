"""Access tokens of this gateway: JWTs according to RFC 9068."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from msgspec import Struct

from auth.errors import ExpiredToken, InvalidToken
from auth.principal import Principal, Role, Scope, format_scopes, parse_scopes
from auth.tokens.jws import read_header, sign, verify_claims
from auth.tokens.keyring import Keyring

FIRST_PARTY = "atalaya-first-party"
_TYPE = "at+jwt"
_LAST_SECOND = 2**33  # in the year 2242; no genuine token contains a later time


class TokenPolicy(Struct, frozen=True):
    """`lifetime_s` is how long a token is valid; clocks may differ by `leeway_s`. Both are in seconds."""

    issuer: str
    audience: str
    lifetime_s: int
    leeway_s: int = 30


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A signed access token with its scopes; `expires_in` is in seconds."""

    access_token: str = field(repr=False)
    expires_in: int
    scopes: frozenset[Scope]


class TokenAuthority:
    """Issues and verifies access tokens with the keys of a keyring; `clock` returns seconds since 1970."""

    def __init__(self, keyring: Keyring, policy: TokenPolicy, clock: Callable[[], float] = time.time) -> None:
        self._keyring = keyring
        self._policy = policy
        self._clock = clock

    @property
    def issuer(self) -> str:
        return self._policy.issuer

    def issue(
        self,
        *,
        subject: str,
        name: str,
        role: Role | None,
        scopes: Iterable[Scope],
        session_id: str | None = None,
        client_id: str = FIRST_PARTY,
    ) -> IssuedToken:
        """Sign a token for a user, or for a client; a client's token has the client's id as `subject` and no role."""
        granted = frozenset(scopes)
        now = int(self._clock())
        claims = {
            "iss": self._policy.issuer,
            "aud": self._policy.audience,
            "exp": now + self._policy.lifetime_s,
            "iat": now,
            "jti": uuid4().hex,
            "sub": subject,
            "client_id": client_id,
            "scope": format_scopes(granted),
            "name": name,
        }
        claims |= {"role": role} if role else {}
        claims |= {"sid": session_id} if session_id else {}
        key = self._keyring.signing
        token = sign(claims, key, {"kid": key.kid, "typ": _TYPE})
        return IssuedToken(token, self._policy.lifetime_s, granted)

    def verify(self, token: str) -> Principal:
        """Return the token's principal. Raises InvalidToken, ExpiredToken; their messages do not contain the token."""
        try:
            header = read_header(token)
            key = self._keyring.find(header.get("kid"))
            # Only headers as this gateway issues them are accepted: no other member, algorithm or type.
            check(header == {"alg": key.algorithm, "kid": key.kid, "typ": _TYPE}, "header")
            return self._principal(verify_claims(token, key.verification))
        except (ValueError, RecursionError):
            raise InvalidToken("This is not a valid access token. Log in again.") from None

    def _principal(self, claims: dict[str, Any]) -> Principal:
        policy = self._policy
        _check_issuer(claims.get("iss"), policy.issuer)
        check(claims.get("aud") == policy.audience, "audience")
        # This gateway issues times as whole seconds; only other issuers may use fractions.
        check(all(type(claims.get(name, 0)) is int for name in ("exp", "iat", "nbf")), "time")
        expires = read_expiry(claims, self._clock(), policy.leeway_s)
        subject, name, scope, token_id, client_id = (
            read_text(claims, claim) for claim in ("sub", "name", "scope", "jti", "client_id")
        )
        return Principal(
            subject=subject,
            name=name,
            # Only tokens of clients have no role.
            role=None if subject == client_id else Role(read_text(claims, "role")),
            scopes=parse_scopes(scope),
            expires_at=datetime.fromtimestamp(expires, UTC),
            token_id=token_id,
            session_id=read_text(claims, "sid") if "sid" in claims else None,
            client_id=client_id,
            logged_in="sid" in claims,
        )


def _check_issuer(named: object, expected: str) -> None:
    """Raises InvalidToken for another issuer. It names both, because they are public and a wrong PORT is common."""
    if named != expected:
        detail = f"The access token's issuer is {named}, but this gateway's is {expected}."
        raise InvalidToken(f"{detail} Log in at this gateway, or name it with `atalaya token --url`.")


def check(accepted: bool, part: str) -> None:
    """Raise InvalidToken, with a message that names `part` of the token, unless `accepted` is true."""
    if not accepted:
        raise InvalidToken(f"The access token's {part} is not accepted. Log in again.")


def read_expiry(claims: dict[str, Any], now: float, leeway_s: int) -> float:
    """Check that a token is valid at `now`, and return when it expires; times are in seconds since 1970.

    Raises InvalidToken, ExpiredToken, ValueError.
    """
    issued, expires = read_seconds(claims, "iat"), read_seconds(claims, "exp")
    not_before = read_seconds(claims, "nbf") if "nbf" in claims else issued
    check(max(issued, not_before) <= now + leeway_s, "time of issue")
    if now >= expires + leeway_s:
        raise ExpiredToken("The access token has expired. Log in again.")
    return expires


def read_text(claims: dict[str, Any], claim: str) -> str:
    """Return a claim that is a string. Raises ValueError."""
    value = claims.get(claim)
    if not isinstance(value, str):
        raise ValueError(claim)
    return value


def read_seconds(claims: dict[str, Any], claim: str) -> float:
    """Return a claim that is a time in seconds since 1970, possibly with a fraction (RFC 7519, section 2).

    Raises ValueError.
    """
    value = claims.get(claim)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _LAST_SECOND:
        raise ValueError(claim)
    return float(value)
