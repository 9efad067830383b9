"""All settings and their defaults, described in .env.example. No other package reads the environment."""

from __future__ import annotations

from api.settings.fields import Environment
from api.settings.gateway import Settings
from api.settings.home import INSTALLATION, home_folder, sqlite_file
from api.settings.loading import SettingsReader, load_local_settings, load_settings, reload_settings
from api.settings.reading.variables import child_environment

__all__ = [
    "INSTALLATION",
    "Environment",
    "Settings",
    "SettingsReader",
    "child_environment",
    "home_folder",
    "load_local_settings",
    "load_settings",
    "reload_settings",
    "sqlite_file",
]
