"""Reading docker-compose.yml, with its variables replaced as Compose does."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.support.paths import ROOT

_VARIABLE = re.compile(r"\$\{(\w+):-((?:[^${}]|\$\{[^}]*\})*)\}")


def read_compose_file(variables: Mapping[str, str]) -> dict[str, Any]:
    """Return the Compose file for a `.env` that has these variables."""
    document: dict[str, Any] = yaml.safe_load(interpolate((ROOT / "docker-compose.yml").read_text(), variables))
    return document


def interpolate(text: str, variables: Mapping[str, str]) -> str:
    """Replace `${NAME:-default}`, also inside defaults."""

    def replace(match: re.Match[str]) -> str:
        return variables.get(match[1]) or interpolate(match[2], variables)

    return _VARIABLE.sub(replace, text)


def read_env_file(path: Path) -> dict[str, str]:
    pairs = (line.partition("=") for line in path.read_text().splitlines() if line and not line.startswith("#"))
    return {name: value for name, _, value in pairs}
