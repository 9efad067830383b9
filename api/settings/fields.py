"""Shared parts of the groups of settings: the base class, the environments, and the parsing of lists and JSON."""

from __future__ import annotations

import json
from enum import StrEnum

from pydantic import BaseModel, ConfigDict


class Environment(StrEnum):
    DEVELOPMENT = "development"
    PRODUCTION = "production"


class SettingsGroup(BaseModel):
    # Forbids unknown names, so that a mistyped setting is an error. Defaults are validated: relative paths need it.
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


def split_commas(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def parse_json(value: object) -> object:
    """Raises ValueError."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError as error:
        raise ValueError(f"must be JSON in one line: {error.msg} at character {error.pos + 1}") from None
