"""Reverse proxies with TLS and client certificates, in front of a gateway."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.support.certificates import Authority
from tests.support.gateway import Gateway
from tests.support.paths import BIN, ROOT
from tests.support.polling import wait_until
from tests.support.ports import free_port
from tests.support.requirements import find_program

REPLICA = "X-Replica"
_NAME_REPLICA = f"""
\theader >{REPLICA} {{http.reverse_proxy.upstream.hostport}}
\thandle_errors {{
\t\theader {REPLICA} {{http.reverse_proxy.upstream.hostport}}
\t}}"""


@contextmanager
def caddy(folder: Path, authority: Authority, gateway: Gateway) -> Iterator[str]:
    """Run Caddy with TLS, optional client certificates and RFC 9440's header before the gateway; yield its URL."""
    certificate, key = authority.issue("CN=proxy")
    configuration = f"""gateway.example {{
    tls {certificate} {key} {{
        client_auth {{
            mode verify_if_given
            trusted_ca_cert_file {authority.path}
        }}
    }}
    reverse_proxy 127.0.0.1:8000 {{
        header_up Client-Cert ":{{http.request.tls.client.certificate_der_base64}}:"
    }}
}}
"""
    with _running_caddy(folder, authority, [gateway], configuration) as url:
        yield url


@contextmanager
def shipped_caddy(
    folder: Path,
    authority: Authority,
    *gateways: Gateway,
    idle_s: int = 60,
    cdn: str = "",
    names_replicas: bool = False,
) -> Iterator[str]:
    """Run deploy/caddy/Caddyfile in front of the gateways, with idle connections kept for `idle_s`; yield its URL.

    `cdn` has the networks of proxies in front of Caddy, separated by spaces.
    With `names_replicas`, the header REPLICA of each response, including Caddy's own errors, has the address to which
    Caddy sent the request.
    """
    certificate, key = authority.issue("CN=proxy")
    configuration = (ROOT / "deploy" / "caddy" / "Caddyfile").read_text()
    replacements = {
        "{$DOMAIN:localhost} {": f"gateway.example {{\n\ttls {certificate} {key}{_NAME_REPLICA * names_replicas}",
        "{$GATEWAYS:127.0.0.1:8000}": "127.0.0.1:8000",
        "{$CADDY_TRUSTED_PROXIES}": cdn,
        "keepalive 60s": f"keepalive {idle_s}s",
    }
    with _running_caddy(folder, authority, gateways, _replace(configuration, replacements)) as url:
        yield url


@contextmanager
def _running_caddy(
    folder: Path, authority: Authority, gateways: Sequence[Gateway], configuration: str
) -> Iterator[str]:
    port = free_port()
    replacements = {
        "gateway.example {": f"https://localhost:{port} {{",
        "127.0.0.1:8000": " ".join(f"127.0.0.1:{gateway.port}" for gateway in gateways),
    }
    options = "{\n\tadmin off\n\tauto_https off\n}\n"
    (folder / "Caddyfile").write_text(options + _replace(configuration, replacements))
    environment = {"HOME": str(folder), "PATH": os.environ["PATH"]}
    command = [str(BIN / "caddy"), "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]
    with (folder / "caddy.log").open("wb") as log, subprocess.Popen(command, env=environment, stderr=log) as process:
        try:
            url = f"https://localhost:{port}"  # by name: Caddy chooses its certificate by SNI
            _wait_until_ready(url, authority, process, folder / "caddy.log")
            yield url
        finally:
            process.terminate()


@contextmanager
def nginx(folder: Path, authority: Authority, gateway: Gateway, idle_s: int = 60) -> Iterator[str]:
    """Run nginx with the configuration in deploy/nginx in front of the gateway; yield its URL. It keeps idle
    connections for `idle_s`."""
    program = find_program("nginx")
    port, (certificate, key) = free_port(), authority.issue("CN=proxy")
    configuration = (ROOT / "deploy" / "nginx" / "atalaya.conf").read_text()
    replacements = {
        "listen 80;": f"listen 127.0.0.1:{free_port()};",
        "listen [::]:80;": f"listen [::1]:{free_port()};",
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "listen [::]:443 ssl": f"listen [::1]:{port} ssl",
        "/etc/nginx/tls/gateway.pem": certificate,
        "/etc/nginx/tls/gateway.key": key,
        "/etc/nginx/tls/clients-ca.pem": str(authority.path),
        "127.0.0.1:8000": f"127.0.0.1:{gateway.port}",
        "keepalive_timeout 60s": f"keepalive_timeout {idle_s}s",
    }
    configuration = _replace(configuration, replacements)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    (folder / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {folder}/pid; events {{}}\n"
        f"http {{\naccess_log off;\n{temporary}{configuration}}}\n"
    )
    command = [program, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "nginx.log")]
    with subprocess.Popen(command) as process:
        try:
            url = f"https://127.0.0.1:{port}"
            _wait_until_ready(url, authority, process, folder / "nginx.log")
            yield url
        finally:
            process.terminate()


def _replace(configuration: str, replacements: dict[str, str]) -> str:
    for text, replacement in replacements.items():
        assert text in configuration, text
        configuration = configuration.replace(text, replacement)
    return configuration


def _wait_until_ready(url: str, authority: Authority, process: subprocess.Popen[bytes], log: Path) -> None:
    def is_ready() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            return httpx.get(f"{url}/livez", verify=authority.ssl_context()).is_success
        except httpx.TransportError:
            return False

    wait_until(is_ready, message=log.read_text)
