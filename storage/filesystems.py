"""On what kind of file system a path is: some are lost with their container."""

from __future__ import annotations

import re
from pathlib import Path

EPHEMERAL_FILESYSTEMS = frozenset({"overlay", "tmpfs", "ramfs", "aufs"})
"""A container's own layer, and memory. Mounted volumes have the file system of their disk."""

_MOUNTS = Path("/proc/self/mountinfo")


def find_filesystem(path: Path, mounts: Path = _MOUNTS) -> str | None:
    """Return the type of the file system that holds the absolute path, which need not exist, such as `ext4`.

    `mounts` is in the format of /proc/PID/mountinfo (proc_pid_mountinfo(5)). Returns None if it cannot be read.
    """
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return None
    found: tuple[int, str] | None = None
    for line in lines:
        mount, _, source = line.partition(" - ")
        point = Path(_unescape(mount.split()[4]))
        # Of several mounts at one place, the last one hides the others.
        if path.is_relative_to(point) and (found is None or len(point.parts) >= found[0]):
            found = len(point.parts), source.split()[0]
    return found[1] if found else None


def _unescape(text: str) -> str:
    """Replace the octal escapes of white space and backslashes."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
