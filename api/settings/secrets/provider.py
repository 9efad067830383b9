"""The protocol of secret providers, and opening the one that SECRETS__URL names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol
from urllib.parse import parse_qs

from api.errors import SettingsError
from api.settings.home import describe_installation, resolve_path
from api.settings.secrets.settings import LOCAL_INTERVAL_S, SecretSettings


class SecretProvider(Protocol):
    interval_s: float
    """How many seconds pass between two reads."""

    def read(self) -> Mapping[str, str]:
        """Return the values by the names of settings, in any case. Raises SecretsUnavailable."""


def open_provider(settings: SecretSettings) -> SecretProvider:
    """Create the provider without connecting. Its library is imported only if it is used. Raises SettingsError."""
    scheme, _, rest = settings.url.partition("://")
    if scheme == "file":
        from api.settings.secrets.files import SecretFiles

        return SecretFiles(resolve_path(Path(rest)))
    if scheme == "aws-sm":
        name, _, query = rest.partition("?")
        try:
            from api.settings.secrets.aws import AwsSecret
        except ImportError:
            raise _missing_library("boto3", "aws") from None
        return AwsSecret(name, parse_qs(query).get("region", [None])[0], settings.refresh_seconds)
    if scheme.startswith("vault"):
        try:
            from api.settings.secrets.vault import VaultSecret
        except ImportError:
            raise _missing_library("hvac", "vault") from None
        return VaultSecret(settings)
    return _NoProvider()


class _NoProvider:
    """The provider for env://, which adds nothing, because the environment and .env are read anyway."""

    interval_s = LOCAL_INTERVAL_S

    def read(self) -> Mapping[str, str]:
        return {}


def _missing_library(library: str, extra: str) -> SettingsError:
    how = describe_installation(f"secrets/{extra}.txt")
    return SettingsError(f"SECRETS__URL needs {library}, which is not installed. {how}")
