"""The settings LIMITS__…"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, IPvAnyNetwork, field_validator
from pydantic_settings import NoDecode

from api.settings.fields import SettingsGroup, split_commas

Rate = Annotated[str, Field(pattern=r"^\d+/(\d+ ?)?(second|minute|hour|day)s?$")]


class LimitSettings(SettingsGroup):
    predict: Rate = "10000/minute"
    requests: Rate = "600/minute"
    token: Rate = "30/minute"  # noqa: S105  (a rate)
    trusted_proxies: Annotated[tuple[IPvAnyNetwork, ...], NoDecode] = ()

    _split_networks = field_validator("trusted_proxies", mode="before")(split_commas)
