"""Mutual TLS, terminated by the gateway itself or by Caddy or nginx in front of it."""

from __future__ import annotations

import json
import socket
import ssl
import warnings
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives import serialization

from tests.e2e.proxies.servers import caddy, nginx
from tests.support.certificates import Authority, make_authority
from tests.support.gateway import PASSWORD, TIMEOUT_S, Gateway
from tests.support.polling import wait_until

SUBJECT = "CN=field-app,O=Example"
MAPPED = {"AUTH__CLIENT_CERTIFICATES": json.dumps({SUBJECT: "ana"})}


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return make_authority(tmp_path / "pki")


def get_me(
    url: str,
    authority: Authority,
    certificate: tuple[str, str] | None = None,
    headers: dict[str, str] | None = None,
) -> httpx.Response:
    """GET /v1/me over TLS, with a client certificate if one is given."""
    context = authority.ssl_context(certificate)
    return httpx.get(f"{url}/v1/me", verify=context, headers=headers, timeout=TIMEOUT_S)


def test_the_gateway_terminates_mutual_tls(
    new_gateway: Callable[..., Gateway], authority: Authority, tmp_path: Path
) -> None:
    """Only a mapped certificate of the trusted CA authenticates its caller, and a token takes precedence over it."""
    server = authority.issue("CN=gateway")
    settings = {"TLS_CERTIFICATE": server[0], "TLS_KEY": server[1], "TLS_CLIENT_CA": str(authority.path)}
    gateway = new_gateway(**MAPPED, **settings)
    app = authority.issue(SUBJECT)
    url = gateway.base_url
    assert get_me(url, authority, app).json()["name"] == "ana"
    assert get_me(url, authority).status_code == 401
    assert get_me(url, authority, authority.issue("CN=other")).status_code == 401
    token = gateway.run("token", "--user", "olga", "--password-stdin", stdin=PASSWORD).stdout.strip()
    assert get_me(url, authority, app, {"Authorization": f"Bearer {token}"}).json()["name"] == "olga"
    assert get_me(url, authority, app, {"Authorization": "Bearer forged"}).status_code == 401
    stranger = make_authority(tmp_path / "other").issue(SUBJECT)
    with pytest.raises((httpx.ReadError, httpx.ConnectError, httpx.RemoteProtocolError)):
        get_me(url, authority, stranger)
    assert gateway.run("users", "disable", "ana").returncode == 0
    wait_until(lambda: get_me(url, authority, app).status_code == 401)


def test_a_server_name_that_is_not_ascii_is_ignored(new_gateway: Callable[..., Gateway], authority: Authority) -> None:
    """A handshake with an invalid server name leaves no traceback, and the gateway serves the next one."""
    certificate, key = authority.issue("CN=gateway")
    gateway = new_gateway(MODEL__URL="stub://", TLS_CERTIFICATE=certificate, TLS_KEY=key)
    outgoing = ssl.MemoryBIO()
    client = authority.ssl_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="abcdef.example")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    with socket.create_connection(("127.0.0.1", gateway.port), TIMEOUT_S) as connection:
        connection.sendall(outgoing.read().replace(b"abcdef", b"abc\xffef"))
        assert connection.recv(1) != b""
    assert get_me(gateway.base_url, authority).status_code == 401
    assert gateway.stop() == 0
    assert "Traceback" not in gateway.log()
    assert "Exception ignored" not in gateway.log()


def test_a_trusted_proxy_passes_the_certificate(
    new_gateway: Callable[..., Gateway], authority: Authority, tmp_path: Path
) -> None:
    """A certificate that Caddy verifies and forwards authenticates; the same header from any other client does not."""
    gateway = new_gateway(**MAPPED, LIMITS__TRUSTED_PROXIES="127.0.0.1")
    app = authority.issue(SUBJECT)
    with caddy(tmp_path, authority, gateway) as url:
        response = get_me(url, authority, app)
        assert response.status_code == 200, response.text
        assert response.json()["name"] == "ana"
        assert get_me(url, authority).status_code == 401
        forged = "".join(Path(app[0]).read_text().splitlines()[1:-1])
        assert get_me(url, authority, headers={"Client-Cert": f":{forged}:"}).status_code == 401
    untrusting = new_gateway(**MAPPED)
    response = untrusting.get("/v1/me", headers={"Client-Cert": f":{forged}:"})
    assert response.status_code == 401


def test_nginx_passes_the_certificate_and_the_address(
    new_gateway: Callable[..., Gateway], authority: Authority, tmp_path: Path
) -> None:
    """nginx with the shipped configuration forwards certificate and address, and drops headers that a client forges."""
    gateway = new_gateway(**MAPPED, LIMITS__TRUSTED_PROXIES="127.0.0.0/8")
    app = authority.issue(SUBJECT)
    forged = "".join(Path(app[0]).read_text().splitlines()[1:-1])
    with nginx(tmp_path, authority, gateway) as url:
        assert get_me(url, authority, app).json()["name"] == "ana"
        assert get_me(url, authority).status_code == 401
        assert get_me(url, authority, headers={"Client-Cert": f":{forged}:"}).status_code == 401
        assert get_me(url, authority, make_authority(tmp_path / "other").issue(SUBJECT)).status_code == 400
        # The loopback network is trusted as a proxy here, so the key is bound to an address outside of it.
        terms = "--user", "ana", "--name", "n", "--address", "203.0.113.9", "--json"
        key = json.loads(gateway.run("keys", "create", *terms).stdout)["key"]
        assert get_me(url, authority, headers={"X-API-Key": key, "X-Forwarded-For": "203.0.113.9"}).status_code == 200
        assert (
            get_me(url, authority, headers={"X-API-Key": key, "X-Forwarded-For": "203.0.113.9, 6.6.6.6"}).status_code
            == 401
        )


def test_a_certificate_does_not_authenticate_requests_of_other_sites(
    new_gateway: Callable[..., Gateway], authority: Authority
) -> None:
    """A certificate does not authenticate a request that the browser marks as coming from another site."""
    certificate, key = authority.issue("CN=gateway")
    options = {"TLS_CERTIFICATE": certificate, "TLS_KEY": key, "TLS_CLIENT_CA": str(authority.path)}
    gateway = new_gateway(**MAPPED, **options)
    app = authority.issue(SUBJECT)
    for site, status in {"none": 200, "same-origin": 200, "same-site": 401, "cross-site": 401}.items():
        assert get_me(gateway.base_url, authority, app, headers={"Sec-Fetch-Site": site}).status_code == status


def test_old_tls_is_rejected(new_gateway: Callable[..., Gateway], authority: Authority) -> None:
    """A TLS 1.1 handshake fails and a TLS 1.2 handshake succeeds."""
    certificate, key = authority.issue("CN=gateway")
    gateway = new_gateway(TLS_CERTIFICATE=certificate, TLS_KEY=key)
    for version, reached in ((ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True)):
        context = ssl.create_default_context(cafile=str(authority.path))
        context.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            context.minimum_version = context.maximum_version = version
        with socket.create_connection(("127.0.0.1", gateway.port)) as plain:
            try:
                with context.wrap_socket(plain, server_hostname="127.0.0.1"):
                    assert reached
            except ssl.SSLError:
                assert not reached


def test_incomplete_tls_settings_are_rejected(gateway: Gateway, authority: Authority) -> None:
    """With missing, mismatched or encrypted TLS files, the gateway exits with one line that names the setting."""
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
        serve = gateway.run("serve", *options)
        assert (serve.returncode, serve.stderr.count("\n")) == (1, 1), serve.stderr
        assert named in serve.stderr
