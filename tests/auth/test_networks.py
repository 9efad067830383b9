"""Networks that count as one client, and addresses within networks."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth.networks import client_network, is_within


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:DB8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::1", "::/64"),
        ("unknown", "unknown"),
        ("", ""),
        ("x" * 1000, "x" * 64),
    ],
)
def test_one_client_is_one_network(address: str, network: str) -> None:
    """An IPv6 address counts as its /64 network, a mapped one as IPv4, and other text as itself, truncated."""
    assert client_network(address) == network


@given(st.ip_addresses(v=6), st.integers(0, 2**64 - 1))
def test_addresses_of_one_ipv6_network_are_one_client(address: object, host: int) -> None:
    """Changing the lower 64 bits of an IPv6 address does not change the client."""
    first = int(ip_network(f"{address}/64", strict=False).network_address)
    other = ip_network((first + host, 128)).network_address
    if first >> 32:  # neither of them can be an IPv4-mapped address
        assert client_network(str(address)) == client_network(str(other))


def test_an_address_is_within_its_networks() -> None:
    """An address is within a network of its own family that contains it; other text is within none."""
    networks = (ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"))
    for inside in ("10.1.2.3", "2001:db8::1"):
        assert is_within(inside, networks)
    for outside in ("11.0.0.1", "::1", "::ffff:10.1.2.3", "unknown", "", "10.0.0.0/8"):
        assert not is_within(outside, networks)
    assert not is_within("10.1.2.3", ())
