"""The settings LIMITS__…"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, IPvAnyNetwork, field_validator

from api.settings.fields import SettingsGroup, split_commas

_RATE = re.compile(r"\d+/(\d+ ?)?(second|minute|hour|day)s?")


def _check_rate(value: str) -> str:
    if not _RATE.fullmatch(value):
        raise ValueError("must be N/second, N/minute, N/hour or N/day, such as 100/minute")
    return value


Rate = Annotated[str, AfterValidator(_check_rate)]


class LimitSettings(SettingsGroup):
    predict: Rate = "10000/minute"
    requests: Rate = "600/minute"
    token: Rate = "30/minute"  # noqa: S105  (a rate)
    password: Rate = "10/minute"  # noqa: S105  (a rate)
    trusted_proxies: tuple[IPvAnyNetwork, ...] = ()

    _split_networks = field_validator("trusted_proxies", mode="before")(split_commas)
