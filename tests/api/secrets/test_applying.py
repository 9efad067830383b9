"""How the gateway uses changed signing keys."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from api.services.secrets.applying import build_key_appliers
from api.services.secrets.signing_keys import open_keyring, watch_signing_keys
from api.settings import load_settings
from auth.tokens.jws import generate_signing_key
from auth.tokens.keyring import Keyring, rotate_bundle
from tests.support.polling import wait_until_async

OLD = generate_signing_key("ES256")
RECORDING: Any = None  # not used for this setting


@pytest.fixture
def key_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "keys.pem"
    path.write_text(OLD)
    monkeypatch.setenv("AUTH__SIGNING_KEY_FILE", str(path))
    return path


@pytest.mark.parametrize("in_file", [False, True])
async def test_a_setting_that_the_key_file_overrides_is_not_used(
    in_file: bool, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """A changed AUTH__SIGNING_KEY counts as used only if no AUTH__SIGNING_KEY_FILE overrides it."""
    monkeypatch.setenv("AUTH__SIGNING_KEY", rotate_bundle("ES256", OLD))
    if in_file:
        request.getfixturevalue("key_file")
    keyring = Keyring("ES256", OLD)
    apply = build_key_appliers(keyring, RECORDING)["AUTH__SIGNING_KEY"]
    assert await apply(load_settings()) is not in_file
    assert len(keyring.public_jwks()["keys"]) == (1 if in_file else 2)


def write_with_same_time(path: Path, text: str) -> None:
    stamp = path.stat()
    path.write_text(text)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))


async def test_a_file_with_the_same_modification_time_is_read_again(key_file: Path) -> None:
    """Keys are read again even if a change preserves the modification time, as `cp --preserve` does."""
    settings, rotated = load_settings(), rotate_bundle("ES256", OLD)
    keyring = open_keyring(settings)
    watch = asyncio.create_task(watch_signing_keys(settings, keyring))
    await asyncio.sleep(0)  # lets the task record the state of the file

    def is_read() -> bool:
        write_with_same_time(key_file, rotated)
        return len(keyring.public_jwks()["keys"]) == 2

    await wait_until_async(is_read)
    watch.cancel()


async def test_keys_that_change_during_the_start_are_read(key_file: Path) -> None:
    """A key file that changes between opening the keyring and starting the watch is read."""
    settings = load_settings()
    keyring = open_keyring(settings)
    write_with_same_time(key_file, rotate_bundle("ES256", OLD))
    watch = asyncio.create_task(watch_signing_keys(settings, keyring))
    await wait_until_async(lambda: len(keyring.public_jwks()["keys"]) == 2)
    watch.cancel()
