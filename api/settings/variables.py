"""The variables that settings are read from: the environment, and `.env` in the home."""

from __future__ import annotations

import os
from collections.abc import Mapping
from io import StringIO

from dotenv import dotenv_values

from api.errors import SettingsError
from api.settings.home import home_folder
from storage.filesystems import read_file_version


def read_variables() -> dict[str, str]:
    """Return the variables by name in upper case, without white space around the value; the environment overrides .env.

    Secret stores and editors add line ends, and platforms set empty values; both are left out. Raises SettingsError.
    """
    return {**clean_variables(_read_env_file()), **clean_variables(os.environ)}


def read_env_file_state() -> tuple[int, ...] | None:
    """Return numbers that change when `.env`, its owner or its mode changes; None without it. Raises SettingsError."""
    return read_file_version(home_folder() / ".env")


def child_environment(changes: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment with `changes`, for a child process."""
    return {**os.environ, **changes}


def clean_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables by name in upper case, without empty ones and white space around values."""
    # If a name has two spellings, the one in upper case wins.
    ordered = sorted(variables.items(), key=lambda item: item[0].isupper())
    return {name.upper(): value.strip() for name, value in ordered if value.strip()}


def _read_env_file() -> dict[str, str]:
    """Raises SettingsError."""
    path = home_folder() / ".env"
    if not path.is_file():
        return {}
    try:
        text = path.read_bytes().decode("utf-8-sig")  # Windows editors may begin the file with a byte order mark
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise SettingsError(f"{path} is not UTF-8 text. Save it with the encoding UTF-8, not UTF-16 or Latin-1.")
    return {name: value or "" for name, value in dotenv_values(stream=StringIO(text)).items()}
