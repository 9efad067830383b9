"""Print the notes of a release from CHANGELOG.md: `python3 -m deploy.release.notes v0.2.0`. Needs no packages."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


class NotReleasable(Exception):
    """The tag, the version of the project and the changelog do not agree."""


def read_notes(tag: str, version: str, changelog: str) -> str:
    """Return the section of the changelog about the version that the tag names. Raises NotReleasable."""
    if tag != f"v{version}":
        raise NotReleasable(f"The tag is {tag}, but pyproject.toml has version {version}: tag v{version} instead.")
    heading = rf"^## \[?{re.escape(version)}\]?(?: [^\n]*)?$"
    found = re.search(rf"{heading}\n(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL)
    if found is None or not found[1].strip():
        raise NotReleasable(f"CHANGELOG.md does not describe {version}: rename its section Unreleased.")
    return found[1].strip()


def main(tag: str) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    try:
        print(read_notes(tag, version, (ROOT / "CHANGELOG.md").read_text()))
    except NotReleasable as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main(sys.argv[1])
