"""A certificate authority for tests of TLS, and the authorities that every client trusts."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


@cache
def public_trust() -> ssl.SSLContext:
    """Return one context for requests without a client: httpx would make one for each, which takes 60 ms."""
    return ssl.create_default_context()


@dataclass(frozen=True)
class Authority:
    """A certificate authority that writes certificates and keys as PEM files into its folder."""

    folder: Path
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def path(self) -> Path:
        return self.folder / "ca.pem"

    def ssl_context(self, certificate: tuple[str, str] | None = None) -> ssl.SSLContext:
        """Make a client's context that trusts this authority, and has a client certificate if one is given."""
        context = ssl.create_default_context(cafile=str(self.path))
        if certificate is not None:
            context.load_cert_chain(*certificate)
        return context

    def issue(self, subject: str) -> tuple[str, str]:
        """Issue a client certificate, which is also valid for a server on loopback; return the paths of both files."""
        key = ec.generate_private_key(ec.SECP256R1())
        signed = _certificate(subject, key.public_key(), self.certificate.subject, self.key, authority=False)
        return self._write(signed, key, subject.partition(",")[0].replace("=", "-"))

    def _write(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey, name: str) -> tuple[str, str]:
        paths = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        paths[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, *form))
        return str(paths[0]), str(paths[1])


def _certificate(
    subject: str,
    public: ec.EllipticCurvePublicKey,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    *,
    authority: bool,
) -> x509.Certificate:
    now = datetime.now(UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1")), x509.DNSName("localhost")])
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
    built = x509.CertificateBuilder().subject_name(x509.Name.from_rfc4514_string(subject)).issuer_name(issuer)
    built = built.public_key(public).serial_number(x509.random_serial_number())
    built = built.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(days=1))
    built = built.add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    built = built.add_extension(address, critical=False).add_extension(identifier, critical=False)
    built = built.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    usage = dict.fromkeys(("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"), False)
    usage |= {"digital_signature": True, "key_cert_sign": authority, "crl_sign": authority}
    built = built.add_extension(x509.KeyUsage(**usage, encipher_only=False, decipher_only=False), critical=True)
    return built.sign(key, hashes.SHA256())


def make_authority(folder: Path) -> Authority:
    """Create a new authority in a new folder."""
    folder.mkdir()
    key, name = ec.generate_private_key(ec.SECP256R1()), "CN=Test CA"
    certificate = _certificate(name, key.public_key(), x509.Name.from_rfc4514_string(name), key, authority=True)
    authority = Authority(folder, key, certificate)
    authority.path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return authority
