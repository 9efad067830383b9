"""TLS terminated by the gateway itself, with the client's certificate in the ASGI scope."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.errors import SettingsError
from api.settings import Settings
from storage.filesystems import read_file_version

_Versions = tuple[object, ...]


class CertificateProtocol(HttpToolsProtocol):
    """Adds `client_cert_chain` of ASGI's TLS extension: the client's own certificate as PEM, without its issuers."""

    _certificate: str | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's own signature
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        # None unless the handshake has verified the certificate.
        der = tls.getpeercert(binary_form=True) if tls is not None else None
        self._certificate = ssl.DER_cert_to_PEM_cert(der) if der else None

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._certificate is not None:
            self.scope["extensions"] = {"tls": {"client_cert_chain": [self._certificate]}}


class ServerTls:
    """The TLS of the listeners, whose certificates can be replaced while the gateway serves.

    `context` has the newest certificates that were valid, for the next connections. Open connections keep theirs.
    """

    def __init__(self, settings: Settings, context: ssl.SSLContext, versions: _Versions) -> None:
        """`versions` are those of the files, found before `context` was loaded from them."""
        self.context = context
        self._settings = settings
        self._loaded = self._seen = versions

    def reload(self) -> bool:
        """Load the files if they differ from the loaded ones, and have not changed since the last call.

        So a certificate is not loaded before its key has been written. Returns whether the files were loaded.
        Raises SettingsError once for invalid files. The previous certificates stay in use until the files change.
        """
        versions = _find_versions(self._settings)
        changing, self._seen = versions != self._seen, versions
        if changing or versions == self._loaded:
            return False
        self._loaded = versions
        self.context = server_context(self._settings) or self.context
        return True


def open_tls(settings: Settings) -> ServerTls | None:
    """Load the certificates; None without TLS_CERTIFICATE. Raises SettingsError."""
    versions = _find_versions(settings)  # before loading, so that a change during it is noticed
    context = server_context(settings)
    return None if context is None else ServerTls(settings, context, versions)


def server_context(settings: Settings) -> ssl.SSLContext | None:
    """Create the context for TLS 1.2 or later, or None without TLS_CERTIFICATE. Raises SettingsError."""
    if settings.tls_certificate is None:
        # A gateway that is meant to use TLS must not fall back to plain HTTP.
        if settings.tls_key or settings.tls_client_ca:
            raise SettingsError("TLS_CERTIFICATE is not set, but TLS_KEY or TLS_CLIENT_CA is. Set it, or unset them.")
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    for name in ("tls_certificate", "tls_key", "tls_client_ca"):
        _check_file(name.upper(), getattr(settings, name))
    with _file_errors("TLS_CERTIFICATE and TLS_KEY must be PEM files that belong together, the key not encrypted"):
        # Without a password, OpenSSL would prompt for one on the terminal and wait.
        context.load_cert_chain(settings.tls_certificate, settings.tls_key, password="")
    if settings.tls_client_ca is not None:
        with _file_errors("TLS_CLIENT_CA must be a PEM file of certificates"):
            context.load_verify_locations(settings.tls_client_ca)
        # Clients need no certificate, but one that they send must verify.
        context.verify_mode = ssl.CERT_OPTIONAL
        # A resumed session would not be verified again, even if the CA has been replaced.
        context.num_tickets = 0
        context.options |= ssl.OP_NO_TICKET
    return context


def _find_versions(settings: Settings) -> _Versions:
    paths = settings.tls_certificate, settings.tls_key, settings.tls_client_ca
    return tuple(read_file_version(path) for path in paths if path is not None)


@contextmanager
def _file_errors(requirement: str) -> Iterator[None]:
    """Translate OpenSSL's vague errors into SettingsError."""
    try:
        yield
    except (OSError, ValueError):
        raise SettingsError(f"{requirement}.") from None


def _check_file(setting: str, path: Path | None) -> None:
    """Raises SettingsError if the file cannot be read."""
    if path is not None:
        try:
            path.open("rb").close()
        except OSError as error:
            raise SettingsError(f"{setting}: {path} cannot be read: {error.strerror}.") from None
