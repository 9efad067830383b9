"""Reads the secrets again on a schedule, and applies each changed one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum

import structlog

from api.errors import SecretsUnavailable, SettingsError
from api.settings import Settings, SettingsReader
from api.settings.reading.names import find_changed_secrets
from monitoring.metrics import Metrics

ApplySecret = Callable[[Settings], Awaitable[bool]]
"""Makes a service use the value in the given settings. Returns False if the service must be restarted for that."""

log = structlog.get_logger("atalaya.secrets")


class SecretReads(StrEnum):
    """The outcome of an attempt to read the secrets."""

    READ = "read"
    UNAVAILABLE = "unavailable"
    REJECTED = "rejected"


class SecretFollower:
    """Applies changed secrets. `appliers` maps the setting of each secret that can change to its function.

    While the provider is unavailable, or one of its values is invalid, the last valid values stay in use.
    """

    def __init__(
        self, settings: Settings, reader: SettingsReader, appliers: Mapping[str, ApplySecret], metrics: Metrics
    ) -> None:
        self._current = settings
        self._reader = reader
        self._appliers = appliers
        self._metrics = metrics
        self._outcome = SecretReads.READ
        self._reading = asyncio.Lock()
        for outcome in SecretReads:
            metrics.secret_reads.labels(outcome)

    async def follow(self, sleep: Callable[[float], Awaitable[None]]) -> None:
        """Read the secrets at the interval of the provider, until cancelled."""
        while True:
            await sleep(self._reader.interval_s)
            await self.refresh()

    async def refresh(self) -> None:
        """Read the secrets once, and apply each changed one. Never raises."""
        async with self._reading:
            settings = await self._read()
            if settings is None:
                return
            for name in find_changed_secrets(self._current, settings):
                await self._apply(name, settings)
            self._current = settings

    async def _read(self) -> Settings | None:
        """Return None if the secrets cannot be read or used."""
        try:
            settings = await asyncio.to_thread(self._reader.read)
        except SecretsUnavailable as error:
            self._report(SecretReads.UNAVAILABLE, str(error))
        except SettingsError as error:
            self._report(SecretReads.REJECTED, str(error))
        except Exception as error:  # whatever a provider's library raises; its message might quote a secret
            self._report(SecretReads.UNAVAILABLE, f"SECRETS__URL: reading failed with {type(error).__name__}.")
        else:
            self._report(SecretReads.READ)
            return settings
        return None

    async def _apply(self, name: str, settings: Settings) -> None:
        apply = self._appliers.get(name)
        try:
            if apply is not None and await apply(settings):
                log.info("secret_changed", setting=name)
            else:
                log.warning(
                    "secret_needs_restart", setting=name, policy="the earlier value stays in use until a restart"
                )
        except Exception:  # any error of one service: the others must still get their secrets
            log.exception("secret_not_used", setting=name, policy="the earlier value stays in use until a restart")

    def _report(self, outcome: SecretReads, reason: str | None = None) -> None:
        """Count the attempt, and log it if its outcome differs from that of the previous one."""
        self._metrics.secret_reads.labels(outcome).inc()
        if outcome is self._outcome:
            return
        self._outcome = outcome
        if reason is None:
            log.info("secrets_read_again")
        else:
            log.warning(f"secrets_{outcome}", reason=reason, policy="the last values stay in use")
