"""The variables that settings are read from: the environment, and `.env` in the home."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from io import StringIO

from dotenv import dotenv_values
from dotenv.parser import parse_stream

from api.errors import SettingsError
from api.settings.home import home_folder
from storage.filesystems import read_file_version


def read_variables() -> dict[str, str]:
    """Return the variables by name in upper case, without white space around the value; the environment overrides .env.

    Secret stores and editors add line ends, and platforms set empty values; both are left out. Raises SettingsError.
    """
    return {**parse_env_text(read_env_text()), **read_environment()}


def read_environment() -> dict[str, str]:
    """Return the variables of the environment, as `read_variables` does."""
    return clean_variables(os.environ)


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


def read_env_text() -> str:
    """Return the text of `.env`, which is empty without the file. Raises SettingsError."""
    path = home_folder() / ".env"
    if not path.is_file():
        return ""
    try:
        text = path.read_bytes().decode("utf-8-sig")  # Windows editors may begin the file with a byte order mark
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise SettingsError(f"{path} is not UTF-8 text. Save it with the encoding UTF-8, not UTF-16 or Latin-1.")
    return text


def parse_env_text(text: str) -> dict[str, str]:
    """Return the variables in the text of `.env`, as `read_variables` does."""
    return clean_variables({name: value or "" for name, value in dotenv_values(stream=StringIO(text)).items()})


def set_in_env_text(text: str, name: str, line: str) -> str:
    """Return the text of `.env` with `line` instead of all statements that set the variable, or else at the end.

    A statement may span several lines, and begin with `export`.
    """
    kept: list[str] = []
    found = False
    for statement in parse_stream(StringIO(text)):
        original = statement.original.string
        if (statement.key or "").upper() != name:
            kept.append(original)
        elif not found:
            start = re.match(r"\s*(?:export\s+)?", original)
            kept.append(f"{start[0] if start else ''}{line}\n")
            found = True
    if not found:
        kept.append(f"{line}\n" if not text or text.endswith("\n") else f"\n{line}\n")
    return "".join(kept)
