"""Access tokens: JWTs after RFC 9068, of one key and one algorithm, judged after RFC 8725.

The only module that imports jose. jose 3.5 lets a missing `exp` and an unknown `crit` pass and decodes base64 loosely,
so it checks nothing but the signature: the header is judged before it and the claims after it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import uuid4

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from jose import jwk, jws
from jose.backends.base import Key
from jose.exceptions import JOSEError

from auth.errors import ExpiredToken, InvalidToken, WeakSigningKey
from auth.principal import Principal, Role, Scope

SigningAlgorithm = Literal["ES256", "HS256"]

MAX_TOKEN_CHARS = 8192
_TYPE = "at+jwt"
_FIRST_PARTY = "atalaya-first-party"
_LAST_SECOND = 2**33  # in the year 2242: later times are no honest claim


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One key for one algorithm. `kid` derives from its RFC 7638 thumbprint, so it needs no setting."""

    algorithm: SigningAlgorithm
    kid: str
    private: Key = field(repr=False)
    public: Key = field(repr=False)


@dataclass(frozen=True, slots=True)
class TokenPolicy:
    """`lifetime_s` is how long a token lives; clocks may differ by `leeway_s`. Both in seconds."""

    issuer: str
    audience: str
    lifetime_s: int
    leeway_s: int = 30


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """`expires_in` is in seconds."""

    access_token: str = field(repr=False)
    expires_in: int
    scopes: frozenset[Scope]


def generate_signing_key(algorithm: SigningAlgorithm) -> str:
    """Make a new key as text that `load_signing_key` reads: PEM (PKCS #8), or 256 random bits in base64url."""
    if algorithm == "HS256":
        return secrets.token_urlsafe(32)
    pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pem.decode()


def load_signing_key(algorithm: SigningAlgorithm, text: str) -> SigningKey:
    """Read a key from a setting.

    ES256: the PEM of a P-256 private key; literal backslash-n sequences count as line ends. HS256: a text that can
    hold 256 bits; its bytes are the secret. Raises WeakSigningKey.
    """
    text = text.strip()
    if algorithm == "ES256":
        return _load_private_key(text.replace("\\n", "\n"))
    return _load_secret(text)


def _load_private_key(pem: str) -> SigningKey:
    try:
        key = serialization.load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise WeakSigningKey("AUTH__SIGNING_KEY must be the PEM of an unencrypted P-256 private key for ES256.")
    private = jwk.construct(pem, "ES256")
    public = private.public_key()
    return SigningKey("ES256", _thumbprint(public, ("crv", "kty", "x", "y")), private, public)


def _load_secret(text: str) -> SigningKey:
    if _most_bits(text) < 256:
        raise WeakSigningKey(
            "AUTH__SIGNING_KEY must hold at least 256 bits for HS256: 64 hexadecimal digits or 43 base64url characters."
        )
    try:
        key = jwk.construct(text.encode(), "HS256")
    except JOSEError:
        raise WeakSigningKey("AUTH__SIGNING_KEY is an asymmetric key: set AUTH__SIGNING_ALGORITHM to ES256.") from None
    # The thumbprint of a secret is hashed once more: RFC 7638, section 7, warns of publishing it.
    kid = hashlib.sha256(_thumbprint(key, ("k", "kty")).encode()).hexdigest()[:16]
    return SigningKey("HS256", kid, key, key)


def _most_bits(text: str) -> int:
    """How many bits the text can hold at most, by the alphabet it is written in."""
    if re.fullmatch(r"[0-9A-Fa-f]*", text):
        return 4 * len(text)
    if re.fullmatch(r"[0-9A-Za-z+/_=-]*", text):
        return 6 * len(text)
    return 8 * len(text.encode())


def _thumbprint(key: Key, members: Iterable[str]) -> str:
    """RFC 7638: SHA-256 over the required members, in order and without spaces, as base64url."""
    known = key.to_dict()
    canonical = json.dumps({member: known[member] for member in members}, separators=(",", ":"), sort_keys=True)
    return _encoded(hashlib.sha256(canonical.encode()).digest())


class TokenAuthority:
    """Issues and verifies access tokens with one key; `clock` tells seconds since 1970."""

    def __init__(self, key: SigningKey, policy: TokenPolicy, clock: Callable[[], float] = time.time) -> None:
        self._key = key
        self._policy = policy
        self._clock = clock
        self._header = {"alg": key.algorithm, "kid": key.kid, "typ": _TYPE}

    def issue(self, *, subject: str, name: str, role: Role, scopes: Iterable[Scope]) -> IssuedToken:
        """Sign a token for a user whose id is `subject`."""
        granted = frozenset(scopes)
        now = int(self._clock())
        claims = {
            "iss": self._policy.issuer,
            "aud": self._policy.audience,
            "exp": now + self._policy.lifetime_s,
            "iat": now,
            "jti": uuid4().hex,
            "sub": subject,
            "client_id": _FIRST_PARTY,
            "scope": " ".join(sorted(granted)),
            "name": name,
            "role": role,
        }
        token = jws.sign(claims, self._key.private, headers=self._header, algorithm=self._key.algorithm)
        return IssuedToken(token, self._policy.lifetime_s, granted)

    def verify(self, token: str) -> Principal:
        """Return whom the token stands for. Raises InvalidToken, ExpiredToken; neither repeats the token."""
        try:
            self._check_header(token)
            payload = jws.verify(token, self._key.public, [self._key.algorithm])
            return self._principal(_json_object(payload))
        except (JOSEError, ValueError, RecursionError):
            # The cause may quote what was sent.
            raise InvalidToken("This is not a valid access token. Log in again.") from None

    def _check_header(self, token: str) -> None:
        """Let only what this gateway issues come to the signature: no other header, encoding or serialisation."""
        _check(len(token) <= MAX_TOKEN_CHARS, "length")
        header, _, _ = map(_decoded, token.split("."))
        _check(_json_object(header) == self._header, "header")

    def _principal(self, claims: dict[str, Any]) -> Principal:
        policy, now = self._policy, self._clock()
        _check(claims.get("iss") == policy.issuer, "issuer")
        _check(claims.get("aud") == policy.audience, "audience")
        issued, expires = _seconds(claims, "iat"), _seconds(claims, "exp")
        begins = _seconds(claims, "nbf") if "nbf" in claims else issued
        _check(max(issued, begins) <= now + policy.leeway_s, "time of issue")
        if now >= expires + policy.leeway_s:
            raise ExpiredToken("The access token has expired. Log in again.")
        subject, name, role, scope, *_ = (
            _text(claims, claim) for claim in ("sub", "name", "role", "scope", "jti", "client_id")
        )
        return Principal(
            subject=subject,
            name=name,
            role=Role(role),
            scopes=frozenset(Scope(word) for word in scope.split()),
            expires_at=datetime.fromtimestamp(expires, UTC),
        )


def _check(accepted: bool, part: str) -> None:
    if not accepted:
        raise InvalidToken(f"The access token's {part} is not acceptable. Log in again.")


def _text(claims: dict[str, Any], claim: str) -> str:
    value = claims.get(claim)
    if not isinstance(value, str):
        raise ValueError(claim)
    return value


def _seconds(claims: dict[str, Any], claim: str) -> int:
    value = claims.get(claim)
    if type(value) is not int or not 0 <= value < _LAST_SECOND:
        raise ValueError(claim)
    return value


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decoded(part: str) -> bytes:
    """Strict base64url: raises ValueError unless encoding the result gives `part` again."""
    data = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    if _encoded(data) != part:
        raise ValueError("not canonical base64url")
    return data


def _json_object(data: bytes) -> dict[str, Any]:
    """Parse a JSON object without repeated names (RFC 7515, section 4). Raises ValueError, RecursionError."""
    value = json.loads(data.decode(), object_pairs_hook=_unique)
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("repeated name")
    return members
