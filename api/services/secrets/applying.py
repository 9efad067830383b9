"""Apply changed secrets without a restart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from api.production import find_secret_problems
from api.services.background import run_in_background
from api.services.background.activity import Activity
from api.services.recording import RecordingServices
from api.services.runtime import open_error_reporter
from api.services.secrets.following import ApplySecret, SecretFollower
from api.settings import Settings, SettingsReader
from auth.changes import ChangeFeed
from auth.tokens.keyring import Keyring
from monitoring.reporting.telemetry import Telemetry
from storage.logins import DatabaseLogin


@asynccontextmanager
async def follow_secrets(
    settings: Settings,
    keyring: Keyring,
    login: DatabaseLogin,
    recording: RecordingServices,
    telemetry: Telemetry,
    activity: Activity,
    changes: ChangeFeed,
) -> AsyncIterator[None]:
    """Use changed secrets until the context ends.

    An idle process reads only local files, which sends no packets. It reads all secrets before it accepts the next
    credential, because a leaked signing key may have been removed meanwhile.
    """
    reader = SettingsReader(settings, find_secret_problems)
    appliers = {
        **build_key_appliers(keyring, recording),
        "DATABASE_URL": _make_login_applier(login),
        "SENTRY_DSN": _make_dsn_applier(telemetry),
    }
    follower = SecretFollower(settings, reader, appliers, telemetry.metrics)
    changes.before_resuming(follower.refresh)
    sleep = asyncio.sleep if settings.secrets.is_local else activity.sleep
    async with run_in_background(follower.follow(sleep)):
        yield


def build_key_appliers(keyring: Keyring, recording: RecordingServices) -> Mapping[str, ApplySecret]:
    async def apply_signing_key(settings: Settings) -> bool:
        if settings.auth.signing_key_file is not None:
            return False  # the file overrides this setting
        keyring.replace(settings.signing_keys())
        return True

    async def apply_ledger_key(settings: Settings) -> bool:
        await recording.use_ledger_key(settings.ledger_key())
        return True

    return {"AUTH__SIGNING_KEY": apply_signing_key, "LEDGER__SIGNING_KEY": apply_ledger_key}


def _make_login_applier(login: DatabaseLogin) -> ApplySecret:
    async def apply(settings: Settings) -> bool:
        return login.replace(settings.database_url.get_secret_value())

    return apply


def _make_dsn_applier(telemetry: Telemetry) -> ApplySecret:
    async def apply(settings: Settings) -> bool:
        opened = await asyncio.to_thread(open_error_reporter, settings, telemetry.metrics.error_reports_dropped.inc)
        await asyncio.to_thread(telemetry.reporter.replace, opened)
        return True

    return apply
