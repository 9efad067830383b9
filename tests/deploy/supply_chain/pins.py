"""The packages that a lock file pins."""

from __future__ import annotations

import re
from pathlib import Path


def read_pins(lock_file: Path) -> set[str]:
    """Return NAME==VERSION of each package in a lock file."""
    return {
        f"{name}=={version}" for name, version in re.findall(r"^([\w.-]+)==([^ ;\\]+)", lock_file.read_text(), re.M)
    }
