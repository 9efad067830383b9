"""The gateway's own TLS serves a renewed certificate without a restart."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from cryptography import x509

from tests.support.certificates import Authority, make_authority, public_trust
from tests.support.gateway import PASSWORD, TIMEOUT_S, Gateway
from tests.support.paths import FOREST
from tests.support.polling import wait_until


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return make_authority(tmp_path / "pki")


@pytest.fixture
def gateway(new_gateway: Callable[..., Gateway], authority: Authority) -> Gateway:
    certificate, key = authority.issue("CN=gateway")
    return new_gateway(TLS_CERTIFICATE=certificate, TLS_KEY=key, MODEL__URL="stub://")


def served_serial(gateway: Gateway, authority: Authority) -> int:
    """Return the serial number of the certificate that a new connection gets."""
    with (
        socket.create_connection(("127.0.0.1", gateway.port), timeout=TIMEOUT_S) as plain,
        authority.ssl_context().wrap_socket(plain, server_hostname="127.0.0.1") as connection,
    ):
        der = connection.getpeercert(binary_form=True)
        assert der is not None
        return x509.load_der_x509_certificate(der).serial_number


def serial(path: str) -> int:
    return x509.load_pem_x509_certificate(Path(path).read_bytes()).serial_number


def shown_expiry(gateway: Gateway) -> float:
    """Return the time at which the certificate in use expires, according to the metrics."""
    text = httpx.get(gateway.metrics_url, timeout=TIMEOUT_S, verify=public_trust()).text
    (sample,) = re.findall(r'^atalaya_certificate_expiry_timestamp_seconds{certificate="server"} (\S+)', text, re.M)
    return float(sample)


@contextmanager
def load(gateway: Gateway, authority: Authority) -> Iterator[None]:
    """Predict on connections that stay open and on new ones, and check that every request succeeds."""
    token = gateway.run("token", "--user", "ana", "--password-stdin", stdin=PASSWORD).stdout.strip()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "image/jpeg"}
    image, url, context = FOREST.read_bytes(), f"{gateway.base_url}/v1/predictions", authority.ssl_context()
    stopped = threading.Event()

    def predict(extra: dict[str, str]) -> int:
        count = 0
        with httpx.Client(verify=context, headers=headers | extra, timeout=TIMEOUT_S) as client:
            while not stopped.is_set():
                assert client.post(url, content=image).status_code == 200
                count += 1
        return count

    with ThreadPoolExecutor(4) as threads:
        futures: list[Future[int]] = [threads.submit(predict, extra) for extra in ({}, {"Connection": "close"}) * 2]
        try:
            yield
        finally:
            stopped.set()
        assert all(future.result() for future in futures)


def test_a_renewed_certificate_is_served_under_load(gateway: Gateway, authority: Authority) -> None:
    """New connections get each of three renewed certificates, and no request on open or new connections fails."""
    with load(gateway, authority):
        for _ in range(3):
            renewed = serial(authority.issue("CN=gateway")[0])
            wait_until(lambda renewed=renewed: served_serial(gateway, authority) == renewed)  # type: ignore[misc]


def test_invalid_files_are_not_used(gateway: Gateway, authority: Authority) -> None:
    """A certificate that does not match the key is rejected, and the old one stays in use until both match."""
    certificate, key = (Path(gateway.environment[name]) for name in ("TLS_CERTIFICATE", "TLS_KEY"))
    new_certificate, new_key = (Path(path) for path in authority.issue("CN=renewed"))
    old_serial = served_serial(gateway, authority)
    certificate.write_bytes(new_certificate.read_bytes())
    wait_until(lambda: "certificates_refused" in gateway.log())
    assert "TLS_CERTIFICATE and TLS_KEY must be PEM files that belong together" in gateway.log()
    assert served_serial(gateway, authority) == old_serial
    key.write_bytes(new_key.read_bytes())
    wait_until(lambda: served_serial(gateway, authority) == serial(str(certificate)))
    renewed = x509.load_pem_x509_certificate(certificate.read_bytes())
    wait_until(lambda: shown_expiry(gateway) == renewed.not_valid_after_utc.timestamp())
