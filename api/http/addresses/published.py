"""The networks that operators of proxies publish: lists shipped with the code, and newer ones in the home folder."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from enum import StrEnum
from ipaddress import ip_network
from pathlib import Path

from auth.networks import Network

_MIN_PREFIX_BITS = {4: 8, 6: 16}
_CLOUDFRONT = "CLOUDFRONT_ORIGIN_FACING"


class ProxyService(StrEnum):
    """Services whose networks LIMITS__TRUSTED_PROXIES may name."""

    CLOUDFLARE = "cloudflare"
    CLOUDFRONT = "cloudfront"


def list_file(folder: Path, service: ProxyService) -> Path:
    """Return the path of an installed list."""
    return folder / f"{service}.txt"


def read_list(folder: Path, service: ProxyService) -> Sequence[Network]:
    """Return the networks in the list in `folder`, or else in the one shipped with the code. Raises ValueError."""
    paths = list_file(folder, service), list_file(Path(__file__).parent, service)
    try:
        path = next((path for path in paths if path.is_file()), None)
    except OSError as error:
        raise ValueError(f"{error.filename} cannot be read: {error.strerror}") from None
    if path is None:
        raise ValueError(f"the networks of {service} are unknown. Run `atalaya proxies refresh {service} FILE`")
    try:
        return parse_lines(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be used: {error}") from None


def parse_published(service: ProxyService, text: str) -> Sequence[Network]:
    """Parse a published list: one network per line (Cloudflare), or ip-ranges.json (AWS). Raises ValueError."""
    return parse_lines(text) if service is ProxyService.CLOUDFLARE else _parse_aws(text)


def parse_lines(text: str) -> Sequence[Network]:
    """Parse one network per line, ignoring empty lines and those that begin with #. Raises ValueError."""
    lines = (line.strip() for line in text.splitlines())
    return _parse_networks(line for line in lines if line and not line.startswith("#"))


def _parse_aws(text: str) -> Sequence[Network]:
    """Raises ValueError."""
    try:
        document = json.loads(text)
        entries = [(entry["service"], entry["ip_prefix"]) for entry in document["prefixes"]]
        entries += [(entry["service"], entry["ipv6_prefix"]) for entry in document["ipv6_prefixes"]]
    except (ValueError, TypeError, LookupError, RecursionError):
        raise ValueError("not AWS's ip-ranges.json") from None
    return _parse_networks(network for service, network in entries if service == _CLOUDFRONT)


def _parse_networks(texts: Iterable[str]) -> Sequence[Network]:
    """Raises ValueError for an empty list, and for a network that is not public or too large for one operator."""
    networks = tuple(ip_network(text) for text in dict.fromkeys(texts))
    if not networks:
        raise ValueError("it contains no networks")
    for network in networks:
        if network.prefixlen < _MIN_PREFIX_BITS[network.version] or not network.is_global:
            raise ValueError(f"{network} is too large, or not a public network")
    return networks
