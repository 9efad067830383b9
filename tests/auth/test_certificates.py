"""Certificates that stand for users, on both databases."""

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

    def make(subject: str = SUBJECT, begins: datetime = NOW - timedelta(days=1), days: int = 30) -> str:
        name = x509.Name.from_rfc4514_string(subject)
        built = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        built = built.serial_number(1).not_valid_before(begins).not_valid_after(begins + timedelta(days=days))
        return built.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()

    return make


@pytest.fixture
async def user(engine: AsyncEngine) -> User:
    return await UserStore(engine).add("ana", Role.CLIENT, "hash")


@pytest.fixture
def desk(engine: AsyncEngine) -> CertificateUsers:
    return CertificateUsers(UserStore(engine), {SUBJECT: "ana", "CN=gone": "nobody"}, NOW.timestamp)


async def test_a_subject_stands_for_a_user(desk: CertificateUsers, user: User, make_pem: MakePem) -> None:
    """The principal is the user, with the role's scopes; a change of the user ends what is remembered."""
    verified = await desk.verify(make_pem())
    assert (verified.principal.subject, verified.principal.scopes) == (user.id, ROLE_SCOPES[Role.CLIENT])
    assert verified.targets == {f"user:{user.id}"}
    assert NOW.timestamp() < verified.valid_until <= NOW.timestamp() + 60


@pytest.mark.usefixtures("user")
@pytest.mark.parametrize("subject", ["CN=field-app", "O=Example,CN=field-app", "CN=other,O=Example", "CN=gone"])
async def test_another_subject_stands_for_nobody(desk: CertificateUsers, make_pem: MakePem, subject: str) -> None:
    """The whole subject must be that of the setting, in its order, and its user must exist."""
    with pytest.raises(InvalidToken):
        await desk.verify(make_pem(subject))


@pytest.mark.usefixtures("user")
@pytest.mark.parametrize("begins", [NOW + timedelta(hours=1), NOW - timedelta(days=31)])
async def test_a_certificate_has_its_time(desk: CertificateUsers, make_pem: MakePem, begins: datetime) -> None:
    """Before and after its time a certificate stands for nobody."""
    with pytest.raises(InvalidToken):
        await desk.verify(make_pem(begins=begins))


async def test_a_disabled_user_is_out(
    engine: AsyncEngine, desk: CertificateUsers, user: User, make_pem: MakePem
) -> None:
    """A certificate is no way around a disabled account."""
    await UserStore(engine).change(user.id, UserChange(disabled=True))
    with pytest.raises(InvalidToken):
        await desk.verify(make_pem())


@pytest.mark.parametrize("pem", ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "é"])
async def test_what_is_no_certificate_is_refused(desk: CertificateUsers, pem: str) -> None:
    """What cannot be read is refused like any other."""
    with pytest.raises(InvalidToken):
        await desk.verify(pem)


@pytest.mark.parametrize("text", ["field app", ""])
def test_a_subject_that_is_none_is_refused(text: str) -> None:
    """A setting with something else than a subject, or an empty one, is an error at start-up."""
    with pytest.raises(ValueError, match=r".*"):
        read_subject(text)


async def test_an_unknown_version_is_refused(desk: CertificateUsers, make_pem: MakePem) -> None:
    """A certificate of a version that X.509 does not know is refused like any other."""
    der = bytearray(ssl.PEM_cert_to_DER_cert(make_pem()))
    der[der.find(b"\xa0\x03\x02\x01\x02") + 4] = 9
    with pytest.raises(InvalidToken):
        await desk.verify(ssl.DER_cert_to_PEM_cert(bytes(der)))
