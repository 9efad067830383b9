"""The settings LIMITS__…"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field, IPvAnyNetwork, WithJsonSchema, field_validator

from api.settings.fields import SettingsGroup, split_commas

_RATE = re.compile(r"\d+/(\d+ ?)?(second|minute|hour|day)s?")


def _check_rate(value: str) -> str:
    if not _RATE.fullmatch(value):
        raise ValueError("must be N/second, N/minute, N/hour or N/day, such as 100/minute")
    return value


Rate = Annotated[str, AfterValidator(_check_rate), WithJsonSchema({"type": "string", "format": "rate"})]


class LimitSettings(SettingsGroup, title="Limits"):
    """A rate is `N/second`, `N/minute`, `N/hour` or `N/day`."""

    predict: Rate = Field(
        "10000/minute",
        description="Predictions of one principal, over both routes. The default only stops runaway clients: it is "
        "slightly more than two cores can serve.",
    )
    requests: Rate = Field(
        "600/minute",
        description="All other authenticated requests of one principal; and requests to `/auth/introspect` and "
        "`/auth/revoke` from one address.",
    )
    token: Rate = Field("30/minute", description="Requests to `/auth/token` from one address.")
    password: Rate = Field(
        "10/minute",
        description="One user's requests that check the own password or one-time code (`/v1/me/password`, "
        "`/v1/me/totp…`).",
    )
    trusted_proxies: tuple[IPvAnyNetwork, ...] = Field(
        (),
        description="Addresses or networks whose `X-Forwarded-For`, `X-Forwarded-Proto` and `Client-Cert` headers are "
        "trusted; see [proxies](deploy/proxies.md#proxies-and-host-names).",
    )

    _split_networks = field_validator("trusted_proxies", mode="before")(split_commas)
