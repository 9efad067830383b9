"""Checks the URLs among the settings, and translates URLs written for other libraries."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

from auth.tokens.issuer_rules import is_safe_url
from storage.errors import DatabaseUnavailable
from storage.urls import read_database_url

_REDIS_FORM = "must be redis://[USER:PASSWORD@]HOST[:PORT][/NUMBER], rediss://… for TLS, or unix://PATH"
_REDIS_PARAMETERS = frozenset({"client_name", "db", "socket_connect_timeout", "socket_timeout"})
_REDIS_TLS_PARAMETERS = frozenset({"ssl_ca_certs", "ssl_cert_reqs", "ssl_check_hostname"})
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # a token of RFC 9110
_DEFAULT_PORTS = {"https": 443, "http": 80}
_NUMBERS = frozenset({"db", "socket_connect_timeout", "socket_timeout"})


def check_database_url(url: str) -> None:
    """Raises ValueError."""
    try:
        read_database_url(url)
    except DatabaseUnavailable as error:
        raise ValueError(re.sub(r"^DATABASE_URL:? ", "", str(error))) from None


def check_public_url(url: str) -> None:
    """Check the gateway's own address. Raises ValueError."""
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("https", "http") and parts.hostname and parts.port != 0
    except ValueError:
        valid = False
    if not valid or parts.username is not None or parts.query or parts.fragment:
        raise ValueError("must be the gateway's public address with its scheme, such as https://atalaya.example.org")


def read_origins(origins: Sequence[str]) -> tuple[str, ...]:
    """Return the origins as browsers send them: in lower case, without a default port. Raises ValueError."""
    if "*" in origins and len(origins) > 1:
        raise ValueError("* allows every origin, so no other origin may be listed")
    return tuple(origin if origin == "*" else _read_origin(origin) for origin in origins)


def _read_origin(origin: str) -> str:
    """Raises ValueError."""
    try:
        parts = urlsplit(origin.lower())
        valid = parts.scheme in _DEFAULT_PORTS and parts.hostname and parts.port != 0
    except ValueError:
        valid = False
    if not valid or parts.geturl() != f"{parts.scheme}://{parts.netloc}" or "@" in parts.netloc or "*" in parts.netloc:
        raise ValueError("must be origins such as https://app.example.org, separated by commas, without path; or *")
    return f"{parts.scheme}://{parts.netloc.removesuffix(f':{_DEFAULT_PORTS[parts.scheme]}')}"


def check_collector_url(url: str) -> None:
    """Check the address of an OpenTelemetry collector. Raises ValueError."""
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("https", "http") and parts.hostname and parts.port != 0
    except ValueError:
        valid = False
    if not valid or parts.query or parts.fragment:
        raise ValueError("must be the collector's address for OTLP over HTTP, such as http://collector:4318")


def parse_headers(text: str) -> dict[str, str]:
    """Read headers in the form of OpenTelemetry's variables: NAME=VALUE,…, with percent-encoded values.

    Raises ValueError, without the values.
    """
    headers = {}
    for pair in text.split(","):
        name, equals, value = pair.strip().partition("=")
        value = unquote(value.strip())
        if not equals or not _HEADER_NAME.fullmatch(name.strip()) or not value.isprintable():
            raise ValueError("must be NAME=VALUE pairs, separated by commas")
        headers[name.strip()] = value
    return headers


def check_issuer_url(url: str) -> None:
    """Check the address of an external identity provider. Raises ValueError."""
    if not is_safe_url(url, loopback=True):
        raise ValueError("must be an https URL (http only for this machine)")


def check_sentry_dsn(dsn: str) -> None:
    """Raises ValueError."""
    try:
        parts = urlsplit(dsn)
        valid = parts.scheme in ("https", "http") and parts.hostname and parts.username and parts.port != 0
    except ValueError:
        valid = False
    if not valid or not parts.path.rpartition("/")[2].isdecimal():
        raise ValueError("must be https://KEY@HOST/NUMBER. Copy it from the project's settings in Sentry")


def read_redis_url(url: str) -> str:
    """Return the URL with redis-py's parameters. Raises ValueError.

    URLs for ioredis have `ssl` or `tls` for TLS, and `family` for the kind of address; redis-py tries all kinds.
    """
    try:
        parts = urlsplit(url)
        valid = _has_redis_target(parts)
    except ValueError:
        valid = False
    if not valid:
        raise ValueError(_REDIS_FORM)
    scheme, parameters = parts.scheme, {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name in ("ssl", "tls") and scheme != "unix" and value.lower() in ("true", "1", "false", "0"):
            scheme = "rediss" if value.lower() in ("true", "1") else scheme
        elif name == "family" and value in ("0", "4", "6"):
            continue
        else:
            parameters[name] = value
    _check_redis_parameters(scheme, parameters)
    query = f"?{urlencode(parameters)}" if parameters else ""
    return f"{scheme}://{parts.netloc}{parts.path}{query}"


def _has_redis_target(parts: SplitResult) -> bool:
    """Raises ValueError for an invalid port."""
    if parts.scheme == "unix":
        return bool(parts.path)
    database = parts.path.strip("/")
    valid = parts.scheme in ("redis", "rediss") and parts.hostname and parts.port != 0
    return bool(valid) and not parts.fragment and (not database or database.isdecimal())


def _check_redis_parameters(scheme: str, parameters: dict[str, str]) -> None:
    """Raises ValueError."""
    allowed = _REDIS_PARAMETERS | (_REDIS_TLS_PARAMETERS if scheme == "rediss" else frozenset())
    for name, value in parameters.items():
        if name not in allowed:
            named = f"the parameter {name}" if re.fullmatch(r"\w+", name) else "a parameter"
            raise ValueError(f"{named} is not supported. Remove it")
        if name in _NUMBERS and not re.fullmatch(r"\d+(\.\d+)?" if name != "db" else r"\d+", value):
            raise ValueError(f"the parameter {name} must be a number")
        if name == "ssl_cert_reqs" and value not in ("none", "optional", "required"):
            raise ValueError("the parameter ssl_cert_reqs must be none, optional or required")
