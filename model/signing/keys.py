"""The keys of signatures: ECDSA with a NIST curve and the SHA-2 hash of matching size (FIPS 186-5)."""

from __future__ import annotations

import binascii
import hashlib
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_private_key,
    load_pem_public_key,
)

from model.signing.errors import SigningKeyRejected

PublicKey = ec.EllipticCurvePublicKey
PrivateKey = ec.EllipticCurvePrivateKey

RELEASE_KEY = (
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAERXUtGCYUSLAqrjaq3h6IiqflfEsz"
    "NUAxfd5TvQ29QFu7t0SRst5/+FIoDhm3MtkYvyxTr0RaY/tra0Zb+0LSLg=="
)
"""The key that signs the artefacts in this repository. Production trusts it unless MODEL__VERIFY_KEY is set."""

# The specification requires verifiers to support these curves. A signer may choose one; this one uses P-256.
_HASHES: Mapping[str, Callable[[], hashes.HashAlgorithm]] = {
    "secp256r1": hashes.SHA256,
    "secp384r1": hashes.SHA384,
    "secp521r1": hashes.SHA512,
}
_SIGNING_CURVE = "secp256r1"
_GENERATE = "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out model-key.pem"
_EXPORT = "openssl pkey -in model-key.pem -pubout -out model-key.pub"


def read_public_key(text: str) -> PublicKey:
    """Read a key in PEM, with or without its first and last line. Raises SigningKeyRejected."""
    if "PRIVATE KEY" in text:
        raise SigningKeyRejected(f"It is a private key. Export the public key: {_EXPORT}")
    try:
        key = load_pem_public_key(text.encode()) if "-----BEGIN" in text else load_der_public_key(_decode_lines(text))
    except (ValueError, UnsupportedAlgorithm):
        raise SigningKeyRejected(f"It is not a public key in PEM. Export one: {_EXPORT}") from None
    if not isinstance(key, PublicKey) or key.curve.name not in _HASHES:
        raise SigningKeyRejected(f"It is {_describe(key)}, but signatures need the curve P-256, P-384 or P-521.")
    return key


def read_private_key(pem: bytes, password: str | None = None) -> PrivateKey:
    """Read a private key on P-256 in PEM. Raises SigningKeyRejected."""
    try:
        key = load_pem_private_key(pem, None if password is None else password.encode())
    except (ValueError, TypeError, UnsupportedAlgorithm):
        problem = "It is not a private key in PEM" if password is None else "The password is wrong"
        raise SigningKeyRejected(f"{problem}. A new key: {_GENERATE}") from None
    if not isinstance(key, PrivateKey) or key.curve.name != _SIGNING_CURVE:
        raise SigningKeyRejected(f"It is {_describe(key)}, but artefacts are signed on P-256: {_GENERATE}")
    return key


def is_encrypted(pem: bytes) -> bool:
    """Whether reading this private key needs a password."""
    return b"-----BEGIN ENCRYPTED PRIVATE KEY-----" in pem or b"Proc-Type: 4,ENCRYPTED" in pem


def fingerprint(key: PublicKey) -> str:
    """Return the SHA-256 in hex of the key's PEM, which is the `hint` of a bundle."""
    return hashlib.sha256(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def encode_public_key(key: PublicKey) -> str:
    """Return the key as one line of base64, which `read_public_key` reads."""
    return b64encode(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()


def signature_algorithm(key: PublicKey) -> ec.ECDSA:
    return ec.ECDSA(_HASHES[key.curve.name]())


def _decode_lines(text: str) -> bytes:
    """Decode base64 that may be broken into lines. Raises ValueError."""
    try:
        return b64decode("".join(text.split()), validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None


def _describe(key: object) -> str:
    return (
        f"a key on the curve {key.curve.name}"
        if isinstance(key, PublicKey | PrivateKey)
        else f"an {type(key).__name__}"
    )
