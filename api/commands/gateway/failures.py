"""Checks the addresses of gateways and other servers, and explains why one cannot be reached."""

from __future__ import annotations

import ssl
from urllib.parse import urlsplit

import httpx
import typer


def check_url(url: str, option: str = "--url") -> None:
    """Raises BadParameter for what is not the URL of an HTTP server."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  (raises ValueError for an invalid port)
        httpx.URL(url).raw_host.decode().encode("idna")  # as the socket module does
    except (ValueError, httpx.InvalidURL) as error:
        raise typer.BadParameter(f"{option}: {url} is not a URL: {error}.") from None
    if "://" in url and parts.scheme not in ("http", "https"):
        raise typer.BadParameter(f"{option}: Only http:// and https:// are supported, not {url}.")
    if parts.scheme not in ("http", "https"):
        raise typer.BadParameter(f"{option}: {url} has no scheme. Write http://{url} or https://{url}.")


def explain_failure(error: BaseException) -> str:
    """Describe the system error behind an httpx error, without names of Python classes."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted ({cause.verify_message}); SSL_CERT_FILE can name another authority"
        if isinstance(cause, ssl.SSLError):
            return "the TLS handshake failed; check whether the address begins with http:// or https://"
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror[0].lower() + cause.strerror[1:]
        cause = cause.__cause__ or cause.__context__
    return str(error) or "the connection failed"
