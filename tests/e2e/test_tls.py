"""Mutual TLS on the wire: terminated by the gateway itself, and by a real Caddy in front of it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

ROOT = Path(__file__).parents[2]
SUBJECT = "CN=field-app,O=Example"
MAPPED = {"AUTH__CLIENT_CERTIFICATES": json.dumps({SUBJECT: "ana"})}


@dataclass(frozen=True)
class Authority:
    """A certificate authority that writes certificates and keys as PEM files."""

    folder: Path
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def path(self) -> Path:
        return self.folder / "ca.pem"

    def issue(self, subject: str) -> tuple[str, str]:
        """Paths of a certificate, good for a server on this machine, too, and of its key."""
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
    folder.mkdir()
    key, name = ec.generate_private_key(ec.SECP256R1()), "CN=Test CA"
    certificate = _certificate(name, key.public_key(), x509.Name.from_rfc4514_string(name), key, authority=True)
    authority = Authority(folder, key, certificate)
    authority.path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return authority


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return make_authority(tmp_path / "pki")


def ask(url: str, ca: Authority, certificate: tuple[str, str] | None = None, **headers: str) -> httpx.Response:
    """GET /v1/me over TLS, with a client certificate where one is given."""
    context = ssl.create_default_context(cafile=str(ca.path))
    if certificate is not None:
        context.load_cert_chain(*certificate)
    return httpx.get(f"{url}/v1/me", verify=context, headers=headers)


def test_the_gateway_terminates_mutual_tls(
    new_gateway: Callable[..., Any], authority: Authority, tmp_path: Path
) -> None:
    """A certificate of the CA whose subject is mapped logs in; a token wins over it; no other certificate counts."""
    server = authority.issue("CN=gateway")
    settings = {"TLS_CERTIFICATE": server[0], "TLS_KEY": server[1], "TLS_CLIENT_CA": str(authority.path)}
    gateway = new_gateway(**MAPPED, **settings)
    app = authority.issue(SUBJECT)
    url = gateway.base_url
    assert ask(url, authority, app).json()["name"] == "ana"
    assert ask(url, authority).status_code == 401
    assert ask(url, authority, authority.issue("CN=other")).status_code == 401
    token = gateway.run("token", "--user", "olga", "--password-stdin", stdin="correct horse battery").stdout.strip()
    assert ask(url, authority, app, Authorization=f"Bearer {token}").json()["name"] == "olga"
    assert ask(url, authority, app, Authorization="Bearer forged").status_code == 401
    stranger = make_authority(tmp_path / "other").issue(SUBJECT)
    with pytest.raises((httpx.ReadError, httpx.ConnectError, httpx.RemoteProtocolError)):
        ask(url, authority, stranger)
    assert gateway.run("users", "disable", "ana").returncode == 0
    deadline = time.monotonic() + 5
    while ask(url, authority, app).status_code != 401:
        assert time.monotonic() < deadline


@contextmanager
def caddy(folder: Path, authority: Authority, gateway: Any) -> Iterator[str]:
    """Caddy in front of the gateway, with TLS, optional client certificates and RFC 9440's header."""
    if shutil.which("caddy") is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(
            "caddy is not installed: apt-get install caddy"
        )
    port = gateway.free_port()
    certificate, key = authority.issue("CN=proxy")
    (folder / "Caddyfile").write_text(f"""{{
    admin off
    auto_https off
}}
https://localhost:{port} {{
    tls {certificate} {key} {{
        client_auth {{
            mode verify_if_given
            trusted_ca_cert_file {authority.path}
        }}
    }}
    reverse_proxy 127.0.0.1:{gateway.environment["PORT"]} {{
        header_up Client-Cert ":{{http.request.tls.client.certificate_der_base64}}:"
    }}
}}
""")
    environment = {"HOME": str(folder), "PATH": os.environ["PATH"]}
    command = ["caddy", "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]
    with (folder / "caddy.log").open("wb") as log, subprocess.Popen(command, env=environment, stderr=log) as process:
        try:
            url = f"https://localhost:{port}"  # by name: Caddy asks for certificates by SNI
            deadline = time.monotonic() + 20
            while True:
                try:
                    ask(url, authority)
                    break
                except httpx.ConnectError:
                    assert process.poll() is None, (folder / "caddy.log").read_text()
                    assert time.monotonic() < deadline
            yield url
        finally:
            process.terminate()


def test_a_trusted_proxy_passes_the_certificate(
    new_gateway: Callable[..., Any], authority: Authority, tmp_path: Path
) -> None:
    """Caddy verifies the certificate and passes it on; the same header from anyone else is nothing."""
    gateway = new_gateway(**MAPPED, LIMITS__TRUSTED_PROXIES="127.0.0.1")
    app = authority.issue(SUBJECT)
    with caddy(tmp_path, authority, gateway) as url:
        answer = ask(url, authority, app)
        assert answer.status_code == 200, (answer.status_code, answer.text)
        assert answer.json()["name"] == "ana"
        assert ask(url, authority).status_code == 401
        forged = "".join(Path(app[0]).read_text().splitlines()[1:-1])
        assert ask(url, authority, **{"Client-Cert": f":{forged}:"}).status_code == 401
    untrusting = new_gateway(**MAPPED)
    answer = httpx.get(f"{untrusting.base_url}/v1/me", headers={"Client-Cert": f":{forged}:"})
    assert answer.status_code == 401


@contextmanager
def nginx(folder: Path, authority: Authority, gateway: Any) -> Iterator[str]:
    """nginx in front of the gateway, with the configuration that is shipped."""
    if shutil.which("nginx") is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(
            "nginx is not installed: apt-get install nginx"
        )
    port, (certificate, key) = gateway.free_port(), authority.issue("CN=proxy")
    shipped = (ROOT / "deploy" / "nginx" / "atalaya.conf").read_text()
    for written, here in {
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "/etc/nginx/tls/gateway.pem": certificate,
        "/etc/nginx/tls/gateway.key": key,
        "/etc/nginx/tls/clients-ca.pem": str(authority.path),
        "127.0.0.1:8000": f"127.0.0.1:{gateway.environment['PORT']}",
    }.items():
        assert written in shipped
        shipped = shipped.replace(written, here)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    own = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    (folder / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {folder}/pid; events {{}}\nhttp {{\naccess_log off;\n{own}{shipped}}}\n"
    )
    command = ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "nginx.log")]
    with subprocess.Popen(command) as process:
        try:
            url = f"https://127.0.0.1:{port}"
            _wait_for(url, authority, process, folder / "nginx.log")
            yield url
        finally:
            process.terminate()


def _wait_for(url: str, authority: Authority, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            ask(url, authority)
            return
        except httpx.ConnectError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline


def test_nginx_passes_the_certificate_and_the_address(
    new_gateway: Callable[..., Any], authority: Authority, tmp_path: Path
) -> None:
    """With the shipped configuration nginx passes the certificate on, and what a client invents does not count."""
    gateway = new_gateway(**MAPPED, LIMITS__TRUSTED_PROXIES="127.0.0.0/8")
    app = authority.issue(SUBJECT)
    forged = "".join(Path(app[0]).read_text().splitlines()[1:-1])
    with nginx(tmp_path, authority, gateway) as url:
        assert ask(url, authority, app).json()["name"] == "ana"
        assert ask(url, authority).status_code == 401
        assert ask(url, authority, **{"Client-Cert": f":{forged}:"}).status_code == 401
        assert ask(url, authority, make_authority(tmp_path / "other").issue(SUBJECT)).status_code == 400
        # Every other address of the loopback network is trusted here; this one is not.
        terms = "--user", "ana", "--name", "n", "--address", "203.0.113.9", "--json"
        key = json.loads(gateway.run("keys", "create", *terms).stdout)["key"]
        assert ask(url, authority, **{"X-API-Key": key, "X-Forwarded-For": "203.0.113.9"}).status_code == 200
        assert ask(url, authority, **{"X-API-Key": key, "X-Forwarded-For": "203.0.113.9, 6.6.6.6"}).status_code == 401


def test_a_page_of_another_site_has_no_use_of_the_certificate(
    new_gateway: Callable[..., Any], authority: Authority
) -> None:
    """Browsers present certificates unasked, and say where the request comes from."""
    certificate, key = authority.issue("CN=gateway")
    options = {"TLS_CERTIFICATE": certificate, "TLS_KEY": key, "TLS_CLIENT_CA": str(authority.path)}
    gateway = new_gateway(**MAPPED, **options)
    app = authority.issue(SUBJECT)
    for site, status in {"none": 200, "same-origin": 200, "same-site": 401, "cross-site": 401}.items():
        assert ask(gateway.base_url, authority, app, **{"Sec-Fetch-Site": site}).status_code == status


def test_old_tls_is_refused(new_gateway: Callable[..., Any], authority: Authority) -> None:
    """TLS 1.1 gets no handshake, TLS 1.2 does."""
    certificate, key = authority.issue("CN=gateway")
    gateway = new_gateway(TLS_CERTIFICATE=certificate, TLS_KEY=key)
    for version, reached in ((ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True)):
        context = ssl.create_default_context(cafile=str(authority.path))
        context.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            context.minimum_version = context.maximum_version = version
        with socket.create_connection(("127.0.0.1", int(gateway.environment["PORT"]))) as plain:
            try:
                with context.wrap_socket(plain, server_hostname="127.0.0.1"):
                    assert reached
            except ssl.SSLError:
                assert not reached


def test_half_a_tls_setting_is_refused(gateway: Any, authority: Authority) -> None:
    """Files that are missing, unfit or encrypted, or a key alone, end the start in one line that names the setting."""
    certificate, key = authority.issue("CN=gateway")
    encrypted = authority.folder / "encrypted.key"
    loaded = serialization.load_pem_private_key(Path(key).read_bytes(), password=None)
    form = serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"sesame")
    encrypted.write_bytes(loaded.private_bytes(serialization.Encoding.PEM, *form))
    for options, named in (
        (["--tls-key", key], "TLS_CERTIFICATE"),
        (["--tls-client-ca", str(authority.path)], "TLS_CERTIFICATE"),
        (["--tls-certificate", certificate], "TLS_KEY"),
        (["--tls-certificate", certificate, "--tls-key", "missing"], "TLS_KEY"),
        (["--tls-certificate", certificate, "--tls-key", authority.issue("CN=other")[1]], "TLS_KEY"),
        (["--tls-certificate", certificate, "--tls-key", str(encrypted)], "TLS_KEY"),
        (["--tls-certificate", certificate, "--tls-key", key, "--tls-client-ca", key], "TLS_CLIENT_CA"),
    ):
        done = gateway.run("serve", *options)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
        assert named in done.stderr
