"""The settings LIMITS__…"""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, field_validator

from api.http.addresses.published import ProxyService, read_list
from api.settings.fields import SettingsGroup, split_commas
from api.settings.home import published_networks_folder
from auth.networks import Network

_RATE = re.compile(r"\d+/([1-9]\d* ?)?(second|minute|hour|day)s?")


def _check_rate(value: str) -> str:
    if not _RATE.fullmatch(value):
        raise ValueError("must be N/second, N/minute, N/hour or N/day, such as 100/minute")
    return value


Rate = Annotated[str, AfterValidator(_check_rate), WithJsonSchema({"type": "string", "format": "rate"})]


def _read_proxy(value: object) -> object:
    """Return a network, or a service whose list of networks can be read. Raises ValueError."""
    if not isinstance(value, str):
        return value
    try:
        service = ProxyService(value.lower())
    except ValueError:
        try:
            return ip_network(value)
        except ValueError:
            services = " or ".join(ProxyService)
            raise ValueError(f"must be IP addresses, networks such as 10.0.0.0/8, or {services}") from None
    read_list(published_networks_folder(), service)
    return service


Proxy = Annotated[
    IPv4Network | IPv6Network | ProxyService,
    BeforeValidator(_read_proxy),
    WithJsonSchema({"type": "string", "format": "proxy"}),
]


class LimitSettings(SettingsGroup, title="Limits"):
    """A rate is `N/second`, `N/minute`, `N/hour` or `N/day`."""

    predict: Rate = Field(
        "10000/minute",
        description="Predictions of one principal, over all prediction routes. The default only stops runaway clients: "
        "it is slightly more than two cores can serve.",
    )
    requests: Rate = Field(
        "600/minute",
        description="All other authenticated requests of one principal; and requests to `/auth/introspect` and "
        "`/auth/revoke` from one address.",
    )
    token: Rate = Field("30/minute", description="Requests to `/auth/token` from one address.")
    password: Rate = Field(
        "10/minute",
        description="Requests of one user that check that user's own password or one-time code (`/v1/me/password`, "
        "`/v1/me/totp…`).",
    )
    trusted_proxies: tuple[Proxy, ...] = Field(
        (),
        description="Addresses, networks, `cloudflare` or `cloudfront`, whose `X-Forwarded-For` and "
        "`X-Forwarded-Proto` headers are trusted, and also `Client-Cert` except for the two services; see "
        "[proxies](deploy/proxies.md#proxies-and-host-names).",
    )

    _split_networks = field_validator("trusted_proxies", mode="before")(split_commas)

    def proxy_networks(self) -> Sequence[Network]:
        """Return the networks of all trusted proxies, including those published by the services in the setting."""
        listed = self.certificate_proxies()
        services = [proxy for proxy in self.trusted_proxies if isinstance(proxy, ProxyService)]
        folder = published_networks_folder()
        return [*listed, *(network for service in services for network in read_list(folder, service))]

    def certificate_proxies(self) -> Sequence[Network]:
        """Return the networks of the proxies whose Client-Cert header is trusted.

        Cloudflare and CloudFront pass on a header of this name that their clients have sent.
        """
        return [proxy for proxy in self.trusted_proxies if not isinstance(proxy, ProxyService)]
