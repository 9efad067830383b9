"""Threats T22 and T23: a forged Host header and forged client addresses, sent to running gateways."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Callable

import pytest

from tests.support.gateway import Gateway

FORWARDING_HEADERS = ("X-Forwarded-For", "Forwarded", "X-Real-IP", "CF-Connecting-IP", "True-Client-IP")
NO_CREDENTIALS = {"grant_type": "client_credentials"}


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "evil.example:80"])
def test_an_unknown_host_is_rejected(gateway: Gateway, host: str) -> None:
    """T22: a request for a host name that is not listed gets a 421 that does not repeat the name."""
    response = gateway.get("/v1/me", headers={"Host": host})
    assert (response.status_code, response.json()["code"]) == (421, "host_not_allowed")
    assert host not in response.text


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/v2/health/live", "/v2/health/ready"])
def test_probes_may_name_any_host(gateway: Gateway, path: str) -> None:
    """T22: probes of a platform, which request an address, get their response; it reveals nothing."""
    assert gateway.get(path, headers={"Host": "203.0.113.7"}).status_code == 200


def test_two_host_headers_are_rejected(gateway: Gateway) -> None:
    """T22: a request with a second Host header is rejected, even if the first one is allowed."""
    with socket.create_connection(("127.0.0.1", gateway.port)) as connection:
        connection.sendall(b"GET /v1/me HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
        response = http.client.HTTPResponse(connection)
        response.begin()
        assert response.status in (400, 421)


def test_the_host_header_does_not_change_the_issuer(gateway: Gateway) -> None:
    """T22: the metadata names the configured issuer under every allowed host name."""
    issuers = {
        gateway.get("/.well-known/oauth-authorization-server", headers={"Host": host}).json()["issuer"]
        for host in ("localhost", "127.0.0.1", "LOCALHOST:1")
    }
    assert issuers == {f"http://localhost:{gateway.port}"}


def test_a_client_cannot_choose_its_address(new_gateway: Callable[..., Gateway]) -> None:
    """T23: a client that sends a new forwarded address with each request is still limited by its real address."""
    gateway = new_gateway(LIMITS__TOKEN="3/hour")
    statuses = [
        gateway.post(
            "/auth/token", data=NO_CREDENTIALS, headers=dict.fromkeys(FORWARDING_HEADERS, f"6.6.6.{index}")
        ).status_code
        for index in range(5)
    ]
    assert statuses == [401, 401, 401, 429, 429]


def test_a_trusted_proxy_sets_the_address(new_gateway: Callable[..., Gateway]) -> None:
    """T23: behind a trusted proxy the right-most forwarded address is the client's; those left of it are ignored."""
    gateway = new_gateway(LIMITS__TOKEN="1/hour", LIMITS__TRUSTED_PROXIES="127.0.0.0/8")
    statuses = [
        gateway.post(
            "/auth/token", data=NO_CREDENTIALS, headers={"X-Forwarded-For": f"6.6.6.{index}, {client}"}
        ).status_code
        for index, client in enumerate(("203.0.113.1", "203.0.113.1", "203.0.113.2"))
    ]
    assert statuses == [401, 429, 401]
