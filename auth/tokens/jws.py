"""Keys for one algorithm each, and signing and verifying compact JWS (RFC 7515) according to RFC 8725.

The only module that imports jose. jose 3.5 decodes base64 loosely and accepts repeated names and an unknown `crit`, so
only its keys and its signing are used: this module checks the form, and the callers check header and claims.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
from collections.abc import Callable, Iterable, Mapping
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
MIN_DIFFERENT = 9  # characters of a secret, or bytes of a key: random ones almost certainly have more


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A key for one algorithm; `verify(message, signature)` returns whether the signature is right."""

    algorithm: str
    verify: Callable[[bytes, bytes], bool] = field(repr=False)


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A signing key for one algorithm. `kid` is derived from its RFC 7638 thumbprint, so it needs no setting."""

    algorithm: SigningAlgorithm
    kid: str
    private: Key = field(repr=False)
    public: Key = field(repr=False)

    @property
    def verification(self) -> VerificationKey:
        return VerificationKey(self.algorithm, self.public.verify)

    def public_jwk(self) -> dict[str, str] | None:
        """Return the public key (RFC 7517), or None for a secret key."""
        if self.algorithm != "ES256":
            return None
        jwk_members = self.public.to_dict()
        members = {name: jwk_members[name] for name in ("kty", "crv", "x", "y")}
        return {**members, "kid": self.kid, "alg": self.algorithm, "use": "sig"}


def generate_signing_key(algorithm: SigningAlgorithm) -> str:
    """Generate a key as text for `load_signing_key`: PEM (PKCS #8), or 256 random bits in base64url."""
    if algorithm == "HS256":
        return secrets.token_urlsafe(32)
    pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pem.decode()


def load_signing_key(algorithm: SigningAlgorithm, text: str) -> SigningKey:
    """Read a key from a setting.

    ES256: the PEM of a P-256 private key, in which literal backslash-n sequences are read as line ends. HS256: a text
    long enough for 256 bits, whose bytes are the secret. Raises WeakSigningKey.
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
    return SigningKey("ES256", _compute_thumbprint(public, ("crv", "kty", "x", "y")), private, public)


def _load_secret(text: str) -> SigningKey:
    if _count_max_bits(text) < 256:
        raise WeakSigningKey(
            "AUTH__SIGNING_KEY must hold at least 256 bits for HS256: 64 hexadecimal digits or 43 base64url characters."
        )
    if len(set(text)) < MIN_DIFFERENT or text in (text + text)[1:-1]:
        raise WeakSigningKey(
            f"AUTH__SIGNING_KEY is not random: it repeats a text, or has fewer than {MIN_DIFFERENT} different "
            "characters. Generate a secret for HS256 with `openssl rand -hex 32`."
        )
    try:
        key = jwk.construct(text.encode(), "HS256")
    except JOSEError:
        raise WeakSigningKey("AUTH__SIGNING_KEY is an asymmetric key: set AUTH__SIGNING_ALGORITHM to ES256.") from None
    # The thumbprint of a secret is hashed again, because RFC 7638, section 7, warns against publishing it.
    kid = hashlib.sha256(_compute_thumbprint(key, ("k", "kty")).encode()).hexdigest()[:16]
    return SigningKey("HS256", kid, key, key)


def _count_max_bits(text: str) -> int:
    """Return the maximum entropy of the text in bits, judging by its alphabet."""
    if re.fullmatch(r"[0-9A-Fa-f]*", text):
        return 4 * len(text)
    if re.fullmatch(r"[0-9A-Za-z+/_=-]*", text):
        return 6 * len(text)
    return 8 * len(text.encode())


def _compute_thumbprint(key: Key, members: Iterable[str]) -> str:
    """Return the RFC 7638 thumbprint: base64url of the SHA-256 of the required members as canonical JSON."""
    values = key.to_dict()
    canonical = json.dumps({member: values[member] for member in members}, separators=(",", ":"), sort_keys=True)
    return _encode(hashlib.sha256(canonical.encode()).digest())


def sign(claims: Mapping[str, Any], key: SigningKey, header: Mapping[str, str]) -> str:
    """Sign a token in compact form; `header` holds the members besides `alg`."""
    return jws.sign(dict(claims), key.private, headers=dict(header), algorithm=key.algorithm)


def read_header(token: str) -> dict[str, Any]:
    """Return the header of a token, without verifying its signature. Raises ValueError, RecursionError."""
    if len(token) > MAX_TOKEN_CHARS:
        raise ValueError("too long")
    header, _, _ = map(decode_base64url, token.split("."))
    return _parse_object(header)


def read_unverified_claims(token: str) -> dict[str, Any]:
    """Return the claims without verifying them, to choose the issuer's keys. Raises ValueError, RecursionError."""
    read_header(token)
    return _parse_object(decode_base64url(token.split(".")[1]))


def verify_claims(token: str, key: VerificationKey) -> dict[str, Any]:
    """Verify the signature of a token whose header the caller has checked, and return its claims.

    Raises ValueError, RecursionError; their messages do not contain the token.
    """
    message, _, signature = token.rpartition(".")
    if not key.verify(message.encode(), decode_base64url(signature)):
        raise ValueError("signature")
    return _parse_object(decode_base64url(message.partition(".")[2]))


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode_base64url(part: str) -> bytes:
    """Decode base64url strictly: raises ValueError unless encoding the result gives `part` again."""
    data = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    if _encode(data) != part:
        raise ValueError("not canonical base64url")
    return data


def _parse_object(data: bytes) -> dict[str, Any]:
    """Parse a JSON object without repeated names (RFC 7515, section 4). Raises ValueError, RecursionError.

    An escape such as \\ud800 may be a lone surrogate, which can be neither stored nor sent (RFC 8259, section 8.2).
    """
    text = data.decode()
    value = json.loads(text, object_pairs_hook=_reject_duplicates)
    if not isinstance(value, dict):
        raise ValueError("not an object")
    if "\\u" in text:
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _reject_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("repeated name")
    return members
