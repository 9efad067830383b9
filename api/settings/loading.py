"""Reading the settings, and the environment of child processes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from api.errors import SettingsError
from api.settings.gateway import Settings
from api.settings.home import home_folder


def load_settings(**overrides: Any) -> Settings:
    """Read the settings from the environment, else from .env in the home.

    Raises SettingsError with one line that names the invalid setting, but not its value.
    """
    try:
        return Settings(_env_file=home_folder() / ".env", **overrides)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        name = "__".join(str(part) for part in first["loc"]).upper()
        raise SettingsError(f"{name}: {first['msg']}.") from None


def child_environment(changes: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment with `changes`, for a child process."""
    return {**os.environ, **changes}
