"""Public keys of external issuers: converts a JWK (RFC 7517, RFC 8037) to a verification key for one algorithm."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from auth.tokens.jws import VerificationKey, decode_base64url

# The `kty` and `crv` of a key for each algorithm (RFC 7518, sections 3.1 and 6; RFC 8037).
_KEY_TYPES: Mapping[str, tuple[str, str | None]] = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), ("RSA", None)),
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "ES512": ("EC", "P-521"),
    "EdDSA": ("OKP", "Ed25519"),
}
_HASHES: Mapping[str, hashes.HashAlgorithm] = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}
_CURVES: Mapping[str, ec.EllipticCurve] = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}
_RSA_BITS = range(2048, 8193)  # RFC 7518 forbids shorter keys; longer ones take too much time to verify

# Verifies the signature of a message, and raises InvalidSignature or ValueError for a wrong one.
_Check = Callable[[bytes, bytes], None]


def load_public_key(document: Mapping[str, Any], algorithm: str) -> VerificationKey:
    """Read a public key from a JWK. Raises ValueError unless it is a public key that may be used for `algorithm`."""
    try:
        if (document["kty"], document.get("crv")) != _KEY_TYPES[algorithm] or "d" in document:
            raise ValueError
        usage = document.get("alg", algorithm), document.get("use", "sig")
        if usage != (algorithm, "sig") or "verify" not in document.get("key_ops", ["verify"]):
            raise ValueError
        check = _LOADERS[document["kty"]](document, algorithm)
    except (ValueError, KeyError, TypeError, AttributeError, UnsupportedAlgorithm):
        raise ValueError(f"not a key for {algorithm}") from None

    def verify(message: bytes, signature: bytes) -> bool:
        try:
            check(message, signature)
        except (InvalidSignature, ValueError):
            return False
        return True

    return VerificationKey(algorithm, verify)


def _load_rsa_key(document: Mapping[str, Any], algorithm: str) -> _Check:
    n = int.from_bytes(decode_base64url(document["n"]))
    if n.bit_length() not in _RSA_BITS:
        raise ValueError("size")
    key = rsa.RSAPublicNumbers(int.from_bytes(decode_base64url(document["e"])), n).public_key()
    digest = _HASHES[algorithm[2:]]
    # RFC 7518, section 3.5: the salt is as long as the hash.
    pss = padding.PSS(padding.MGF1(digest), digest.digest_size)
    pad = pss if algorithm.startswith("PS") else padding.PKCS1v15()
    return lambda message, signature: key.verify(signature, message, pad, digest)


def _load_ec_key(document: Mapping[str, Any], algorithm: str) -> _Check:
    curve = _CURVES[document["crv"]]
    x, y = (int.from_bytes(decode_base64url(document[name])) for name in ("x", "y"))
    key = ec.EllipticCurvePublicNumbers(x, y, curve).public_key()
    length, scheme = (curve.key_size + 7) // 8, ec.ECDSA(_HASHES[algorithm[2:]])

    def check(message: bytes, signature: bytes) -> None:
        if len(signature) != 2 * length:
            raise InvalidSignature
        r, s = (int.from_bytes(half) for half in (signature[:length], signature[length:]))
        key.verify(encode_dss_signature(r, s), message, scheme)

    return check


def _load_ed25519_key(document: Mapping[str, Any], _algorithm: str) -> _Check:
    key = Ed25519PublicKey.from_public_bytes(decode_base64url(document["x"]))
    return lambda message, signature: key.verify(signature, message)


_LOADERS: Mapping[str, Callable[[Mapping[str, Any], str], _Check]] = {
    "RSA": _load_rsa_key,
    "EC": _load_ec_key,
    "OKP": _load_ed25519_key,
}
