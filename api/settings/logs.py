"""The settings LOGS__…"""

from __future__ import annotations

import json
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator

from api.settings.fields import SettingsGroup
from api.settings.home import HomePath

_HEADERS_FORM = 'must be a JSON object of header names and values, such as {"DD-API-KEY": "…"}'


class LogSettings(SettingsGroup, title="Logs"):
    """[Operations](operations.md#logs) explains the formats, and how to ship, keep and remove the log.

    A change of these settings and of `LOG_LEVEL` needs a restart.
    """

    format: Literal["otel", "ecs", "datadog", "logfmt", "console"] | None = Field(
        None,
        description="The format of a line: JSON with OpenTelemetry's, Elastic's (`ecs`) or Datadog's names, logfmt, "
        "or text for people (`console`). When empty: `console` on a terminal, else `otel`.",
    )
    file: HomePath | None = Field(
        None,
        description="Also keep the log in files, for machines without a collector: `var/log/atalaya.log` makes a file "
        "for each day, such as `var/log/atalaya-2026-11-26.log`. Off when empty.",
    )
    keep_days: int = Field(14, ge=1, le=3650, description="How many days these files are kept.")
    keep_megabytes: int = Field(
        1024, ge=1, le=1_000_000, description="The oldest files are removed while the total size is larger than this."
    )
    send_url: SecretStr | None = Field(
        None,
        description="Also send the log as JSON arrays with HTTP POST to this URL: Datadog, Logflare, Vector and "
        "others. Off when empty.",
    )
    send_headers: dict[str, SecretStr] = Field(
        default_factory=dict,
        description='Headers of these requests, such as the receiver\'s key: `{"DD-API-KEY": "…"}`.',
    )
    send_gzip: bool = Field(True, description="Whether these requests are compressed.")

    @field_validator("send_url")
    @classmethod
    def _check_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not _is_http_url(value.get_secret_value()):
            raise ValueError("must be the http:// or https:// URL to which log lines are posted")
        return value

    @field_validator("send_headers", mode="before")
    @classmethod
    def _parse_headers(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            headers = json.loads(value)
        except json.JSONDecodeError:
            raise ValueError(_HEADERS_FORM) from None
        if not isinstance(headers, dict) or not all(map(_is_header, headers, headers.values())):
            raise ValueError(_HEADERS_FORM)
        return headers


def _is_http_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _is_header(name: str, value: object) -> bool:
    is_name = bool(name) and name.isascii() and name.replace("-", "").replace("_", "").isalnum()
    return is_name and isinstance(value, str) and value.isascii() and value.isprintable()
