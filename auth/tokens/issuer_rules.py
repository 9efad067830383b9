"""What the gateway accepts from an external identity provider. Imports no database and no key library."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from ipaddress import ip_address
from typing import Literal
from urllib.parse import urlsplit

from msgspec import Struct, field

from auth.principal import Role, Scope

IssuerAlgorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
MAX_SUBJECT = 300  # characters in the database columns for subjects


class ExternalIssuer(Struct, frozen=True):
    """How to read an issuer's tokens for `audience`, which the claim `audience_claim` must contain.

    `scopes` and `roles` translate the values of the claims `scope_claim` and `roles_claim`; other values grant
    nothing. If a token holds several roles, the first in `roles` is used. Clocks may differ by `leeway_s`.
    """

    issuer: str
    audience: str
    audience_claim: str = "aud"
    algorithms: tuple[str, ...] = ("RS256", "ES256")
    scope_claim: str = "scope"
    scopes: Mapping[str, Scope] = field(default_factory=dict)
    roles_claim: str | None = None
    roles: Mapping[str, Role] = field(default_factory=dict)
    default_role: Role | None = None
    leeway_s: int = 30


def format_subject(issuer: str, sub: str) -> str:
    """Return the subject of the principal that a token's claims `iss` and `sub` name. Raises ValueError.

    It is stored, logged and compared, so it must be printable and of limited length.
    """
    subject = f"{issuer}|{sub}"
    if not sub or len(subject) > MAX_SUBJECT or not subject.isprintable():
        raise ValueError("subject")
    return subject


def is_safe_url(url: str, *, loopback: bool) -> bool:
    """Whether the URL uses https, without credentials or a fragment; `loopback` allows http to this machine too."""
    try:
        parts = urlsplit(url)
        secure = parts.scheme == "https" or (loopback and parts.scheme == "http" and _is_loopback(parts.hostname))
        return secure and bool(parts.hostname) and parts.username is None and not parts.fragment
    except ValueError:
        return False


def _is_loopback(host: str | None) -> bool:
    with suppress(ValueError):
        return host == "localhost" or ip_address(host or "").is_loopback
    return False
