"""All settings and their defaults; .env.example describes them. No other package reads the environment."""

from __future__ import annotations

from api.settings.gateway import Environment, Settings
from api.settings.loading import child_environment, load_settings

__all__ = ["Environment", "Settings", "child_environment", "load_settings"]
