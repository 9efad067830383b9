"""The shipped configurations of nginx and Caddy, on the same machine as the gateway."""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from api.settings.gateway import Settings
from tests.e2e.proxies.servers import nginx, shipped_caddy
from tests.support.certificates import Authority, make_authority
from tests.support.gateway import TIMEOUT_S, Gateway
from tests.support.paths import FOREST, ROOT

Proxy = Callable[..., AbstractContextManager[str]]
# As far apart as in the shipped configurations: a busy machine may close a connection seconds too late.
IDLE_S, KEEP_ALIVE_S = 1, 11


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return make_authority(tmp_path / "pki")


@pytest.fixture
def gateway(new_gateway: Callable[..., Gateway]) -> Gateway:
    """A gateway that trusts its proxy only, and closes idle connections early."""
    return new_gateway(LIMITS__TRUSTED_PROXIES="127.0.0.1", KEEP_ALIVE_SECONDS=str(KEEP_ALIVE_S))


@pytest.fixture(params=[nginx, shipped_caddy], ids=["nginx", "caddy"])
def proxy_url(request: pytest.FixtureRequest, tmp_path: Path, authority: Authority, gateway: Gateway) -> Iterator[str]:
    proxy: Proxy = request.param
    with proxy(tmp_path, authority, gateway, idle_s=IDLE_S) as url:
        yield url


def make_client(url: str, authority: Authority, address: str = "127.0.0.1", **headers: str) -> httpx.Client:
    """Make a client that connects from `address`."""
    transport = httpx.HTTPTransport(verify=authority.ssl_context(), local_address=address)
    return httpx.Client(base_url=url, transport=transport, headers=headers, timeout=TIMEOUT_S)


def make_tiff(side: int) -> bytes:
    pixels = np.random.default_rng(1).integers(0, 256, (side, side, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "TIFF")
    return buffer.getvalue()


def test_the_gateway_sees_the_client_through_a_host_proxy(
    proxy_url: str, authority: Authority, gateway: Gateway
) -> None:
    """The client's address is the one that connects to the proxy, whatever it claims; large images and errors pass;
    and the proxy sends no request on a connection that the gateway is closing."""
    terms = "--user", "ana", "--name", "n", "--address", "127.0.0.5", "--json"
    key = json.loads(gateway.run("keys", "create", *terms).stdout)["key"]
    claim = {"X-API-Key": key, "X-Forwarded-For": "127.0.0.5"}
    with make_client(proxy_url, authority, "127.0.0.5", **claim) as client:
        assert client.get("/v1/me").status_code == 200
        large = client.post("/v1/predictions", content=make_tiff(2570))
        assert large.status_code == 200, large.text
        refused = client.post("/v1/predictions", content=make_tiff(2750))
        assert refused.status_code == 413
        assert refused.json()["code"] in {"body_too_large", "image_too_many_bytes"}  # Caddy may omit the length
    with make_client(proxy_url, authority, "127.0.0.6", **claim) as client:
        assert client.get("/v1/me").status_code == 401
    token = gateway.token()

    def send_with_pause(pause_s: float) -> list[int]:
        """Send requests with a body, which proxies do not retry, at an interval close to an idle timeout."""
        with make_client(proxy_url, authority, Authorization=f"Bearer {token}") as client:
            first = client.post("/v1/predictions", content=FOREST.read_bytes())
            time.sleep(pause_s)
            return [first.status_code, client.post("/v1/predictions", content=FOREST.read_bytes()).status_code]

    with ThreadPoolExecutor(6) as threads:
        pauses = [IDLE_S - 0.1, IDLE_S, IDLE_S + 0.1, KEEP_ALIVE_S - 0.1, KEEP_ALIVE_S, KEEP_ALIVE_S + 0.1]
        assert {status for statuses in threads.map(send_with_pause, pauses) for status in statuses} == {200}


@pytest.mark.parametrize(
    "proxy", [nginx, partial(shipped_caddy, cdn="127.0.0.7/32 127.0.0.9/32")], ids=["nginx", "caddy"]
)
def test_the_gateway_sees_the_client_of_a_cdn_in_front_of_the_proxy(
    proxy: Proxy, tmp_path: Path, authority: Authority, new_gateway: Callable[..., Gateway]
) -> None:
    """The address that a trusted CDN adds to X-Forwarded-For is the client's; other clients cannot claim one."""
    gateway = new_gateway(LIMITS__TRUSTED_PROXIES="127.0.0.1,127.0.0.7,127.0.0.9")
    terms = "--user", "ana", "--name", "n", "--address", "127.0.0.5", "--json"
    key = json.loads(gateway.run("keys", "create", *terms).stdout)["key"]
    with proxy(tmp_path, authority, gateway) as url:
        for sender, forwarded, status in (
            ("127.0.0.7", "127.0.0.5", 200),
            ("127.0.0.9", "127.0.0.6, 127.0.0.5", 200),  # the CDN adds the client's address to what the client claims
            ("127.0.0.9", "127.0.0.5, 127.0.0.6", 401),
            ("127.0.0.8", "127.0.0.5", 401),  # not the CDN
        ):
            with make_client(url, authority, sender, **{"X-API-Key": key, "X-Forwarded-For": forwarded}) as client:
                assert client.get("/v1/me").status_code == status, (sender, forwarded)


def test_nginx_serves_callers_with_ipv6(tmp_path: Path, authority: Authority, gateway: Gateway) -> None:
    """nginx listens on IPv6, too, and the gateway sees the IPv6 address of the client."""
    terms = "--user", "ana", "--name", "n", "--address", "::1", "--json"
    headers = {"X-API-Key": json.loads(gateway.run("keys", "create", *terms).stdout)["key"]}
    with nginx(tmp_path, authority, gateway) as url:
        ipv6_url = url.replace("127.0.0.1", "[::1]")
        for base, address, status in ((ipv6_url, "::1", 200), (url, "127.0.0.1", 401)):
            with make_client(base, authority, address, **headers) as client:
                response = client.get("/v1/me", extensions={"sni_hostname": "localhost"})
                assert response.status_code == status, response.text


@pytest.mark.parametrize(
    ("path", "pattern"),
    [("deploy/nginx/atalaya.conf", r"keepalive_timeout (\d+)s;"), ("deploy/caddy/Caddyfile", r"keepalive (\d+)s$")],
)
def test_proxies_close_idle_connections_first(path: str, pattern: str) -> None:
    """The shipped proxies keep idle connections for at least ten seconds less than the gateway does by default."""
    (seconds,) = re.findall(pattern, (ROOT / path).read_text(), re.MULTILINE)
    assert int(seconds) + 10 <= Settings.model_fields["keep_alive_seconds"].default
