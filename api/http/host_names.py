"""Host names as they are compared."""

from __future__ import annotations


def host_name(authority: str) -> str:
    """Return the name in `name:port`, in lower case; an IPv6 address keeps its brackets."""
    authority = authority.strip().lower()
    name, separator, port = authority.rpartition(":")
    return (name if separator and (port.isdecimal() or not port) else authority).rstrip(".")
