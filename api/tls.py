"""TLS that the gateway terminates itself: uvicorn's HTTP protocol, with the client's certificate in the scope."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.settings import Settings


class CertificateProtocol(HttpToolsProtocol):
    """Adds ASGI's TLS extension, of which it fills `client_cert_chain` (PEM, the client's own certificate alone)."""

    _certificate: str | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's own signature
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        # Only what the handshake has verified is told.
        der = tls.getpeercert(binary_form=True) if tls is not None else None
        self._certificate = ssl.DER_cert_to_PEM_cert(der) if der else None

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._certificate is not None:
            self.scope["extensions"] = {"tls": {"client_cert_chain": [self._certificate]}}


def tls_options(settings: Settings) -> dict[str, Any]:
    """What uvicorn needs to speak TLS 1.2 or later; nothing without a certificate."""
    if settings.tls_certificate is None:
        return {}
    options: dict[str, Any] = {"ssl_certfile": str(settings.tls_certificate), "ssl_keyfile": _text(settings.tls_key)}
    if settings.tls_client_ca is not None:
        # A caller may come without one; one that it brings must verify.
        options |= {"ssl_ca_certs": str(settings.tls_client_ca), "ssl_cert_reqs": ssl.CERT_OPTIONAL}
    return options


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
