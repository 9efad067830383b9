"""The keys that sign the gateway's tokens: read from the settings, and again whenever their file changes."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import structlog

from api.errors import SettingsError
from api.settings import Settings
from auth.errors import WeakSigningKey
from auth.tokens.keyring import ACTIVATION_DELAY, Keyring
from storage.filesystems import read_file_version

KEY_FILE_POLL_S = 0.5

log = structlog.get_logger("atalaya.lifespan")


def open_keyring(settings: Settings) -> Keyring:
    """Raises SettingsError, WeakSigningKey."""
    delay = find_activation_delay(settings)
    return Keyring(settings.auth.signing_algorithm, settings.signing_keys(), activation_delay=delay)


def find_activation_delay(settings: Settings) -> timedelta:
    """Return how long a new key only verifies: long enough for every gateway with the same secrets to read it."""
    return max(ACTIVATION_DELAY, timedelta(seconds=settings.secrets.arrival_s))


async def watch_signing_keys(settings: Settings, keyring: Keyring) -> None:
    """Replace the keys within a second of a change of their file; keep the old ones when the new are invalid."""
    path = settings.auth.signing_key_file
    if path is None:
        return
    seen = read_file_version(path)
    _replace_keys(settings, keyring)  # the file may have changed since the keyring was made
    while True:
        await asyncio.sleep(KEY_FILE_POLL_S)
        if (now := read_file_version(path)) == seen:
            continue
        seen = now
        if _replace_keys(settings, keyring):
            log.info("signing_keys_read", kid=keyring.signing.kid)


def _replace_keys(settings: Settings, keyring: Keyring) -> bool:
    """Read the keys again; returns whether they are valid."""
    try:
        keyring.replace(settings.signing_keys())
    except (SettingsError, WeakSigningKey) as error:
        log.error("signing_keys_refused", code=error.code)
        return False
    return True
