"""Subjects of client certificates."""

from __future__ import annotations

from cryptography import x509


def read_subject(text: str) -> x509.Name:
    """Parse a subject in RFC 4514's form, such as `CN=field-app,O=Example`. Raises ValueError."""
    subject = x509.Name.from_rfc4514_string(text)
    if not subject.rdns:
        raise ValueError("the subject is empty")
    return subject
