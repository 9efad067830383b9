"""Client certificates of users, on both databases."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy.ext.asyncio import AsyncEngine

from auth.accounts.store import User, UserChange, UserStore
from auth.certificate_subjects import read_subject
from auth.certificates import CertificateUsers
from auth.errors import InvalidToken
from auth.principal import ROLE_SCOPES, Role

NOW = datetime.now(UTC)
SUBJECT = "CN=field-app,O=Example"
MakePem = Callable[..., str]


@pytest.fixture(scope="module")
def make_pem() -> MakePem:
    key = ec.generate_private_key(ec.SECP256R1())

    def make(subject: str = SUBJECT, not_before: datetime = NOW - timedelta(days=1), days: int = 30) -> str:
        name = x509.Name.from_rfc4514_string(subject)
        built = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        built = built.serial_number(1).not_valid_before(not_before).not_valid_after(not_before + timedelta(days=days))
        return built.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()

    return make


@pytest.fixture
def certificates(engine: AsyncEngine) -> CertificateUsers:
    return CertificateUsers(UserStore(engine), {SUBJECT: "ana", "CN=gone": "nobody"}, NOW.timestamp)


async def test_a_certificate_authenticates_its_user(
    certificates: CertificateUsers, user: User, make_pem: MakePem
) -> None:
    """The principal is the user with the role's scopes, cached for at most a minute or until the user changes."""
    verified = await certificates.verify(make_pem())
    assert (verified.principal.subject, verified.principal.scopes) == (user.id, ROLE_SCOPES[Role.CLIENT])
    assert verified.targets == {f"user:{user.id}"}
    assert NOW.timestamp() < verified.valid_until <= NOW.timestamp() + 60


@pytest.mark.usefixtures("user")
@pytest.mark.parametrize("subject", ["CN=field-app", "O=Example,CN=field-app", "CN=other,O=Example", "CN=gone"])
async def test_an_unmapped_subject_is_rejected(certificates: CertificateUsers, make_pem: MakePem, subject: str) -> None:
    """The whole subject must equal the configured one, in the same order, and its user must exist."""
    with pytest.raises(InvalidToken):
        await certificates.verify(make_pem(subject))


@pytest.mark.usefixtures("user")
@pytest.mark.parametrize("not_before", [NOW + timedelta(hours=1), NOW - timedelta(days=31)])
async def test_a_certificate_outside_its_validity_is_rejected(
    certificates: CertificateUsers, make_pem: MakePem, not_before: datetime
) -> None:
    """A certificate is rejected before and after its period of validity."""
    with pytest.raises(InvalidToken):
        await certificates.verify(make_pem(not_before=not_before))


async def test_a_disabled_user_is_rejected(
    engine: AsyncEngine, certificates: CertificateUsers, user: User, make_pem: MakePem
) -> None:
    """A certificate of a disabled user is rejected."""
    await UserStore(engine).change(user.id, UserChange(disabled=True))
    with pytest.raises(InvalidToken):
        await certificates.verify(make_pem())


@pytest.mark.parametrize("pem", ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "é"])
async def test_unreadable_certificates_are_rejected(certificates: CertificateUsers, pem: str) -> None:
    """Text that is not a certificate is rejected like an unmapped certificate."""
    with pytest.raises(InvalidToken):
        await certificates.verify(pem)


@pytest.mark.parametrize("text", ["field app", ""])
def test_an_invalid_subject_is_rejected(text: str) -> None:
    """A setting that is empty or not a subject raises ValueError."""
    with pytest.raises(ValueError, match=r".*"):
        read_subject(text)


async def test_an_unknown_version_is_rejected(certificates: CertificateUsers, make_pem: MakePem) -> None:
    """A certificate of a version that X.509 does not define is rejected like an unmapped certificate."""
    der = bytearray(ssl.PEM_cert_to_DER_cert(make_pem()))
    der[der.find(b"\xa0\x03\x02\x01\x02") + 4] = 9
    with pytest.raises(InvalidToken):
        await certificates.verify(ssl.DER_cert_to_PEM_cert(bytes(der)))
