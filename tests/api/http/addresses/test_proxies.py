"""Headers of trusted proxies, and host names that the gateway serves."""

from __future__ import annotations

import base64
import ssl
from ipaddress import ip_network
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from api.http.addresses.host_names import host_name
from api.http.addresses.proxies import TrustedProxies

OWN = (ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"))
NETWORKS = (*OWN, ip_network("104.16.0.0/13"))


class RecordingApp:
    """An application that stores the last request's scope."""

    scope: Scope

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})


async def send_through(peer: str, headers: list[tuple[str, str]]) -> Scope:
    """Send a request from `peer` through the middleware; returns the scope behind it."""
    app = RecordingApp()
    transport = httpx.ASGITransport(
        TrustedProxies(app, networks=NETWORKS, certificate_networks=OWN), client=(peer, 1234)
    )
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        await client.get("/", headers=[(name.encode(), value.encode("latin-1")) for name, value in headers])
    return app.scope


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["6.6.6.6, 203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["6.6.6.6, 203.0.113.9, 10.9.9.9"], "203.0.113.9"),
        ("10.0.0.1", ["6.6.6.6", "203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["203.0.113.9:4711"], "203.0.113.9"),
        ("10.0.0.1", ["[2001:4860::1]:80"], "2001:4860::1"),
        ("2001:db8::1", ["2001:4860::1"], "2001:4860::1"),
        ("::ffff:10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["::ffff:203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["203.0.113.9, unknown"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9, "], "10.0.0.1"),
        ("10.0.0.1", ["10.1.1.1, 10.2.2.2"], "10.1.1.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["fe80::1%any text"], "10.0.0.1"),
        ("203.0.113.1", ["6.6.6.6"], "203.0.113.1"),
        ("203.0.113.1", ["10.0.0.1"], "203.0.113.1"),
    ],
)
async def test_client_is_the_right_most_untrusted_hop(peer: str, forwarded: list[str], client: str) -> None:
    """The client is the right-most untrusted hop; addresses that a client has put before it have no effect."""
    scope = await send_through(peer, [("X-Forwarded-For", value) for value in forwarded])
    assert scope["client"][0] == client


@pytest.mark.parametrize(
    ("peer", "proto", "scheme"),
    [
        ("10.0.0.1", "https", "https"),
        ("10.0.0.1", "http, HTTPS", "https"),
        ("10.0.0.1", "javascript", "http"),
        ("6.6.6.6", "https", "http"),
    ],
)
async def test_scheme_comes_from_a_trusted_proxy(peer: str, proto: str, scheme: str) -> None:
    """X-Forwarded-Proto has an effect only from a trusted proxy, and only as http or https."""
    assert (await send_through(peer, [("X-Forwarded-Proto", proto)]))["scheme"] == scheme


@pytest.mark.parametrize("peer", ["10.0.0.1", "6.6.6.6"])
async def test_forwarding_headers_are_removed(peer: str) -> None:
    """The middleware removes forwarding headers, so that no other code can trust them."""
    names = ("Forwarded", "X-Real-IP", "CF-Connecting-IP", "True-Client-IP", "X-Forwarded-Host", "Client-Cert")
    scope = await send_through(peer, [(name, "6.6.6.6") for name in names])
    remaining = {name.decode() for name, _ in scope["headers"]}
    assert remaining.isdisjoint(name.lower() for name in names)


def certificates(scope: Scope) -> Any:
    return scope.get("extensions", {}).get("tls", {}).get("client_cert_chain")


async def test_certificate_comes_from_a_trusted_proxy() -> None:
    """A trusted proxy's Client-Cert header becomes ASGI's TLS extension; other peers' and malformed ones do not."""
    value = f":{base64.b64encode(b'der').decode()}:"
    assert certificates(await send_through("10.0.0.1", [("Client-Cert", value)])) == [ssl.DER_cert_to_PEM_cert(b"der")]
    assert certificates(await send_through("6.6.6.6", [("Client-Cert", value)])) is None
    for malformed in ("", ":", "::", ":!:", ":é:", value[1:], "der"):
        assert not certificates(await send_through("10.0.0.1", [("Client-Cert", malformed)]))


async def test_a_service_forwards_addresses_but_no_certificates() -> None:
    """The address that a proxy service forwards is used; a Client-Cert header, which its clients can send, is not."""
    value = f":{base64.b64encode(b'der').decode()}:"
    scope = await send_through("104.16.0.1", [("X-Forwarded-For", "203.0.113.9"), ("Client-Cert", value)])
    assert scope["client"][0] == "203.0.113.9"
    assert certificates(scope) == []


async def test_two_certificates_are_rejected() -> None:
    """If a client adds a Client-Cert header to the proxy's, both are ignored."""
    values = [f":{base64.b64encode(der).decode()}:" for der in (b"stolen", b"genuine")]
    assert not certificates(await send_through("10.0.0.1", [("Client-Cert", value) for value in values]))


@pytest.mark.parametrize(("peer", "chain"), [("10.0.0.1", []), ("6.6.6.6", ["the peer's"])])
async def test_certificate_of_a_proxy_is_not_the_clients(peer: str, chain: list[str]) -> None:
    """The certificate of a trusted proxy's own connection is not the client's; other peers' certificates are."""
    app = RecordingApp()

    async def proxy(scope: Scope, receive: Receive, send: Send) -> None:
        scope["extensions"] = {"tls": {"client_cert_chain": ["the peer's"]}}
        await TrustedProxies(app, networks=NETWORKS, certificate_networks=OWN)(scope, receive, send)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(proxy, client=(peer, 1)), base_url="http://a") as client:
        await client.get("/")
    assert certificates(app.scope) == chain


@pytest.mark.parametrize(
    ("authority", "name"),
    [
        ("Gateway.Example:8000", "gateway.example"),
        ("gateway.example.", "gateway.example"),
        ("[::1]:8000", "[::1]"),
        ("[::1]", "[::1]"),
        ("gateway.example:", "gateway.example"),
        ("gateway.example:80@evil", "gateway.example:80@evil"),
        ("", ""),
    ],
)
def test_host_name_has_no_port(authority: str, name: str) -> None:
    """The port and a final dot are removed, and the name is in lower case."""
    assert host_name(authority) == name


@pytest.mark.parametrize("host", ["evil.example", "testserver.evil.example", "eviltestserver", "", "testserver@evil"])
def test_unknown_host_is_rejected(client: TestClient, host: str) -> None:
    """A host that is not allowed gets 421 with a request id and advice; probes may use any host."""
    response = client.get("/v1/me", headers={"Host": host})
    assert (response.status_code, response.json()["code"]) == (421, "host_not_allowed")
    assert "ALLOWED_HOSTS" in response.json()["detail"]
    assert response.headers["x-request-id"]
    assert client.get("/livez", headers={"Host": host}).status_code == 200


def test_allowed_host_is_served(client: TestClient) -> None:
    """The port and the case of an allowed host do not matter."""
    assert client.get("/v1/me", headers={"Host": "TestServer:1"}).status_code == 401
