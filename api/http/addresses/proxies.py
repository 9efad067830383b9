"""The client of a request behind trusted proxies, and the host names that the gateway serves."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Collection, Sequence
from http import HTTPStatus
from ipaddress import IPv4Address, IPv6Address, ip_address

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from api.errors import HostNotAllowed
from api.http.addresses.host_names import PROBES, host_name, make_host_matcher
from api.http.audit import record_event
from api.http.problems import respond_with_problem
from auth.networks import Network

Address = IPv4Address | IPv6Address

# Any client can send these headers, so this middleware removes them.
_FORWARDING = frozenset(
    {b"forwarded", b"x-real-ip", b"cf-connecting-ip", b"true-client-ip", b"x-client-ip", b"client-cert"}
    | {b"client-cert-chain", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-port"}
)
_MAX_HOPS = 32


class TrustedProxies:
    """Takes the client's address, scheme and certificate from the headers of a proxy in `networks`.

    The address is the right-most one in X-Forwarded-For that does not belong to a trusted proxy. The certificate is
    read from RFC 9440's header if the proxy is also in `certificate_networks`, and stored as ASGI's TLS extension
    defines. Other peers' headers are dropped unread.
    """

    def __init__(
        self, app: ASGIApp, *, networks: Sequence[Network], certificate_networks: Sequence[Network] = ()
    ) -> None:
        self._app = app
        self._networks = networks
        self._certificate_networks = certificate_networks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            peer = _parse_address(scope["client"][0]) if self._networks and scope.get("client") else None
            if peer is not None and _is_in(peer, self._networks):
                self._apply_headers(scope, Headers(scope=scope), peer)
            scope["headers"] = [(name, value) for name, value in scope["headers"] if name not in _FORWARDING]
        await self._app(scope, receive, send)

    def _apply_headers(self, scope: Scope, headers: Headers, peer: Address) -> None:
        scope["client"] = (str(self._find_client(headers, peer)), 0)
        scheme = headers.get("x-forwarded-proto", "").rpartition(",")[2].strip().lower()
        if scheme in ("http", "https"):
            scope["scheme"] = scheme
        # Replaces the proxy's own certificate. If a client forged a second header, the two joined do not parse.
        trusted = _is_in(peer, self._certificate_networks)
        chain = _parse_certificate(",".join(headers.getlist("client-cert"))) if trusted else []
        scope["extensions"] = {**scope.get("extensions", {}), "tls": {"client_cert_chain": chain}}

    def _find_client(self, headers: Headers, peer: Address) -> Address:
        """Follow X-Forwarded-For back from the peer as long as each hop is trusted."""
        client = peer
        hops = ",".join(headers.getlist("x-forwarded-for")).split(",")
        for hop in reversed(hops[-_MAX_HOPS:]):
            address = _parse_address(hop)
            if address is None:
                break
            client = address
            if not _is_in(address, self._networks):
                break
        return client


class AllowedHosts:
    """Rejects requests for a host that is not in `names`; "*.NAME" allows the subdomains of NAME, "*" every host.

    Probes may use any host.
    """

    def __init__(self, app: ASGIApp, *, names: Collection[str]) -> None:
        self._app = app
        self._allows_all = "*" in names
        self._matches = make_host_matcher(names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in PROBES or self._allows(Headers(scope=scope).getlist("host")):
            await self._app(scope, receive, send)
            return
        detail = "The gateway does not serve this host name. Add it to ALLOWED_HOSTS, or use another."
        await record_event(Request(scope), "access", "misdirected")
        response = respond_with_problem(scope, HTTPStatus.MISDIRECTED_REQUEST, HostNotAllowed.code, detail)
        await response(scope, receive, send)

    def _allows(self, hosts: Sequence[str]) -> bool:
        return self._allows_all or (len(hosts) == 1 and self._matches(host_name(hosts[0])))


def _is_in(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)


def _parse_address(text: str) -> Address | None:
    """Parse an address with or without a port; an IPv4-mapped IPv6 address becomes IPv4."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv4Address):
        return address
    # A zone may be any text, and has no meaning on another machine.
    return None if address.scope_id else address.ipv4_mapped or address


def _parse_certificate(value: str) -> list[str]:
    """Convert a Client-Cert header, DER in base64 between colons (RFC 9440, section 2.2), into PEM."""
    if not (value.startswith(":") and value.endswith(":")):
        return []
    try:
        der = base64.b64decode(value[1:-1], validate=True)
    except ValueError:
        return []
    return [ssl.DER_cert_to_PEM_cert(der)] if der else []
