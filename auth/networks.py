"""IP addresses and networks of callers."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Network = IPv4Network | IPv6Network

_MAX_TEXT = 64


def client_network(address: str) -> str:
    """Return the network that is treated as one client: an IPv4 address, or the /64 network of an IPv6 address.

    A single IPv6 client usually controls a whole /64. Text that is not an address is returned, cut to 64 characters.
    """
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address[:_MAX_TEXT]
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ip_network((parsed, 64), strict=False))
    return str(parsed)


def is_within(address: str, networks: Iterable[Network]) -> bool:
    """Return whether the address is in one of the networks; text that is not an address is in none."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in networks)
