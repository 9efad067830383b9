"""The gateway's own certificates: reports when they expire, and replaces them while the gateway serves."""

from __future__ import annotations

import asyncio
from pathlib import Path

import structlog

from api.errors import SettingsError
from api.server.tls import ServerTls
from api.settings import Settings
from monitoring.metrics import Metrics

_POLL_S = 1.0

log = structlog.get_logger("atalaya.certificates")


def report_certificates(settings: Settings, metrics: Metrics) -> None:
    """Report the earliest expiry in the served certificate chain, and among the client CAs."""
    for name, path in (("server", settings.tls_certificate), ("client_ca", settings.tls_client_ca)):
        if path is None:
            continue
        try:
            metrics.certificate_expiry.labels(name).set(_find_first_expiry(path))
        except (OSError, ValueError) as error:  # OpenSSL has loaded the file, but accepts more than cryptography
            log.warning("certificate_expiry_unknown", certificate=name, reason=type(error).__name__)


async def watch_certificates(tls: ServerTls, settings: Settings, metrics: Metrics) -> None:
    """Use new certificates within seconds of a change of their files; keep the old ones if the new are invalid."""
    while True:
        await asyncio.sleep(_POLL_S)
        try:
            # In a thread: the files may be on a slow disk, and many CAs take a while to load.
            if await asyncio.to_thread(tls.reload):
                report_certificates(settings, metrics)
                log.info("certificates_read")
        except SettingsError as error:
            log.error("certificates_refused", code=error.code, reason=str(error))


def _find_first_expiry(path: Path) -> float:
    """Return the time in seconds since 1970. Raises OSError, ValueError."""
    from cryptography.x509 import load_pem_x509_certificates  # only with TLS: it takes memory

    certificates = load_pem_x509_certificates(path.read_bytes())
    return min(certificate.not_valid_after_utc for certificate in certificates).timestamp()
