"""Signatures of tokens: keys for one algorithm each, and compact JWS (RFC 7515) judged after RFC 8725.

The only module that imports jose. jose 3.5 decodes base64 loosely, takes repeated names and lets an unknown `crit`
pass, so it checks nothing but the signature: the form is judged here before it, and the claims by the callers after it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from jose import jwk, jws
from jose.backends.base import Key
from jose.exceptions import JOSEError

from auth.errors import WeakSigningKey

SigningAlgorithm = Literal["ES256", "HS256"]

MAX_TOKEN_CHARS = 8192

# What a key for each algorithm says of itself (RFC 7518, sections 3.1 and 6).
_KIND_OF: Mapping[str, tuple[str, str | None]] = {
    "RS256": ("RSA", None),
    "RS384": ("RSA", None),
    "RS512": ("RSA", None),
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "ES512": ("EC", "P-521"),
}
_RSA_BITS = range(2048, 8193)  # weaker ones are refused by RFC 7518, longer ones cost too much time


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """One key for one algorithm, to check signatures with."""

    algorithm: str
    public: Key = field(repr=False)


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One key for one algorithm. `kid` derives from its RFC 7638 thumbprint, so it needs no setting."""

    algorithm: SigningAlgorithm
    kid: str
    private: Key = field(repr=False)
    public: Key = field(repr=False)

    @property
    def verification(self) -> VerificationKey:
        return VerificationKey(self.algorithm, self.public)

    def public_jwk(self) -> dict[str, str] | None:
        """The public half (RFC 7517); None for a secret, which has none."""
        if self.algorithm != "ES256":
            return None
        known = self.public.to_dict()
        members = {name: known[name] for name in ("kty", "crv", "x", "y")}
        return {**members, "kid": self.kid, "alg": self.algorithm, "use": "sig"}


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
    # A random secret has more different characters.
    if _most_bits(text) < 256 or len(set(text)) < 9:
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


def load_verification_key(document: Mapping[str, Any], algorithm: str) -> VerificationKey:
    """Read a public key from another issuer's JWK. Raises ValueError unless it is one for `algorithm`."""
    try:
        if not _fits(document, algorithm):
            raise ValueError(f"no {algorithm} key")
        return VerificationKey(algorithm, jwk.construct(dict(document), algorithm))
    except (JOSEError, KeyError, TypeError, UnsupportedAlgorithm):
        raise ValueError(f"no {algorithm} key") from None


def _fits(document: Mapping[str, Any], algorithm: str) -> bool:
    """Whether the key is public, long enough, and meant to verify with this algorithm. Raises ValueError, TypeError."""
    if (document["kty"], document.get("crv")) != _KIND_OF[algorithm] or "d" in document:
        return False
    if document["kty"] == "RSA" and int.from_bytes(_decoded(document["n"])).bit_length() not in _RSA_BITS:
        return False
    says = document.get("alg", algorithm), document.get("use", "sig")
    return says == (algorithm, "sig") and "verify" in document.get("key_ops", ["verify"])


def sign(claims: Mapping[str, Any], key: SigningKey, header: Mapping[str, str]) -> str:
    """A token in compact form; `header` tells more than `alg`."""
    return jws.sign(dict(claims), key.private, headers=dict(header), algorithm=key.algorithm)


def read_header(token: str) -> dict[str, Any]:
    """The header of a token in compact form, its signature unchecked. Raises ValueError, RecursionError."""
    if len(token) > MAX_TOKEN_CHARS:
        raise ValueError("too long")
    header, _, _ = map(_decoded, token.split("."))
    return _json_object(header)


def read_unverified_claims(token: str) -> dict[str, Any]:
    """The claims before any check: only to choose whose keys to check with. Raises ValueError, RecursionError."""
    read_header(token)
    return _json_object(_decoded(token.split(".")[1]))


def verify_claims(token: str, key: VerificationKey) -> dict[str, Any]:
    """The claims of a token with a right signature, whose header the caller has judged.

    Raises ValueError, RecursionError; neither repeats the token.
    """
    try:
        payload = jws.verify(token, key.public, [key.algorithm])
    except JOSEError:
        # The cause may quote what was sent.
        raise ValueError("signature") from None
    return _json_object(payload)


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
