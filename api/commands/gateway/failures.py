"""Explains why a gateway or another server cannot be reached."""

from __future__ import annotations

import ssl


def explain_failure(error: BaseException) -> str:
    """Describe the system error behind an httpx error, without names of Python classes."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted ({cause.verify_message}); SSL_CERT_FILE can name another authority"
        if isinstance(cause, ssl.SSLError):
            return "it does not speak TLS as expected; check whether the address begins with http:// or https://"
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror[0].lower() + cause.strerror[1:]
        cause = cause.__cause__ or cause.__context__
    return str(error) or "the connection failed"
