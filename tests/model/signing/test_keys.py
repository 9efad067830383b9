"""The keys of signatures: ECDSA on NIST curves, in PEM or in one line."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat, PublicFormat

from model.signing.errors import SigningKeyRejected
from model.signing.keys import (
    PrivateKey,
    encode_public_key,
    fingerprint,
    is_encrypted,
    read_private_key,
    read_public_key,
)
from tests.model.signing.forging import new_key, private_pem, public_pem

OTHER_KEYS: Mapping[str, PrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey] = {
    "secp256k1": new_key(ec.SECP256K1()),
    "Ed25519": ed25519.Ed25519PrivateKey.generate(),
    "RSA": rsa.generate_private_key(65537, 2048),
}


def test_a_public_key_is_read_in_pem_and_in_one_line() -> None:
    """A key can be given as PEM or as the base64 in it, with or without line ends."""
    key = new_key().public_key()
    line = encode_public_key(key)
    for text in (public_pem(key).decode(), line, f"{line[:64]}\n{line[64:]}\n"):
        assert fingerprint(read_public_key(text)) == fingerprint(key)
    assert "\n" not in line


@pytest.mark.parametrize("name", OTHER_KEYS)
def test_keys_of_other_kinds_are_rejected_by_name(name: str) -> None:
    """A public key on another curve or of another algorithm is rejected, and the error names its kind."""
    key = OTHER_KEYS[name]
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    with pytest.raises(SigningKeyRejected, match=f"{name}.*P-256, P-384 or P-521"):
        read_public_key(pem)


@pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP256K1()], ids=lambda curve: str(curve.name))
def test_artefacts_are_signed_on_p256_only(curve: ec.EllipticCurve) -> None:
    """A private key on another curve is rejected, and the error names the curve and the command for a valid one."""
    with pytest.raises(SigningKeyRejected, match=f"{curve.name}.*openssl genpkey"):
        read_private_key(private_pem(new_key(curve)))


@pytest.mark.parametrize("text", ["", "hush", "-----BEGIN PUBLIC KEY-----\nhush\n-----END PUBLIC KEY-----", "aHVzaA=="])
def test_what_is_no_public_key_is_rejected(text: str) -> None:
    """Text that is not a public key is rejected, and the error does not repeat it."""
    with pytest.raises(SigningKeyRejected, match="not a public key") as caught:
        read_public_key(text)
    assert "hush" not in str(caught.value)


def test_a_private_key_verifies_nothing() -> None:
    """A private key in place of the public key is rejected, because it must not reach the gateway."""
    with pytest.raises(SigningKeyRejected, match="It is a private key"):
        read_public_key(private_pem(new_key()).decode())


def test_an_encrypted_private_key_needs_its_password() -> None:
    """An encrypted key is recognised, and can be read only with its password."""
    key = new_key()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"correct horse"))
    assert is_encrypted(pem)
    assert not is_encrypted(private_pem(key))
    assert fingerprint(read_private_key(pem, "correct horse").public_key()) == fingerprint(key.public_key())
    with pytest.raises(SigningKeyRejected, match="password is wrong"):
        read_private_key(pem, "wrong horse")
