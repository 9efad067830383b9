"""Normalises host names for comparison, and checks and matches the entries of ALLOWED_HOSTS."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from ipaddress import IPv6Address

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})*")
_MAX_NAME_CHARS = 253  # RFC 1035, section 2.3.4
PROBES = frozenset({"/livez", "/readyz", "/v2/health/live", "/v2/health/ready"})
"""The paths that platforms request by address, not by name."""


def host_name(authority: str) -> str:
    """Return the name in `name:port`, in lower case; an IPv6 address keeps its brackets."""
    authority = authority.strip().lower()
    name, separator, port = authority.rpartition(":")
    return (name if separator and (port.isdecimal() or not port) else authority).rstrip(".")


def check_allowed_host(text: str) -> None:
    """Check that some Host header can match: `*`, a name, `*.` and a name, or an address. Raises ValueError.

    A port is accepted and has no meaning: names are compared without it.
    """
    if text == "*":
        return
    name = host_name(text)
    in_brackets = name.startswith("[") and name.endswith("]")
    if not (_is_ipv6(name[1:-1]) if in_brackets else _is_name(name)):
        raise ValueError(_explain(text))


def read_listen_host(text: str) -> str:
    """Return a host to listen on; an IPv6 address may have brackets. Raises ValueError for `*`."""
    if text == "*":
        raise ValueError("must be an address or a host name. Use :: for every IPv4 and IPv6 address")
    return text[1:-1] if text.startswith("[") and text.endswith("]") else text


def check_host_name(text: str) -> str:
    """Return `text` if it is one host name. Raises ValueError."""
    if "*" in text or ":" in text or not _is_name(host_name(text)):
        raise ValueError("must be a host name without scheme, port and path, such as land.up.railway.app")
    return text


def _is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None and len(text) <= _MAX_NAME_CHARS


def _explain(text: str) -> str:
    if _is_ipv6(text):
        return "an IPv6 address needs brackets, such as [::1]"
    if not text.isascii():
        return "a name with other letters than a to z must be written in its ASCII form, which begins with xn--"
    return (
        "must be host names separated by commas, without scheme and path: example.org, *.example.org for the names "
        "below it, an address such as 192.0.2.1 or [2001:db8::1], or * for any"
    )


def make_host_matcher(names: Collection[str]) -> Callable[[str], bool]:
    """Return a function that checks whether a name is in `names`, or is a subdomain of a `*.` entry there."""
    exact = frozenset(name for name in names if not name.startswith("*."))
    suffixes = tuple(name[1:] for name in names if name.startswith("*."))
    return lambda name: name in exact or (name.endswith(suffixes) and not name.startswith((".", "*")))


def _is_ipv6(text: str) -> bool:
    try:
        return IPv6Address(text).scope_id is None
    except ValueError:
        return False
