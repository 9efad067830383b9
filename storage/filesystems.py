"""Detects changes of files, and the type of the file system that holds a path: containers lose data on some types."""

from __future__ import annotations

import re
from pathlib import Path

EPHEMERAL_FILESYSTEMS = frozenset({"overlay", "tmpfs", "ramfs", "aufs"})
"""Types of a container's writable layer, and of file systems in memory. A mounted volume has the type of its disk."""

_MOUNTS = Path("/proc/self/mountinfo")


def find_filesystem(path: Path, mounts: Path = _MOUNTS) -> str | None:
    """Return the type of the file system that holds the absolute path, which need not exist, such as `ext4`.

    `mounts` is in the format of /proc/PID/mountinfo (proc_pid_mountinfo(5)). Returns None if it cannot be read.
    """
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return None
    deepest: tuple[int, str] | None = None
    for line in lines:
        mount, _, source = line.partition(" - ")
        point = Path(_unescape(mount.split()[4]))
        # Of several mounts at one path, the last one hides the others.
        if path.is_relative_to(point) and (deepest is None or len(point.parts) >= deepest[0]):
            deepest = len(point.parts), source.split()[0]
    return deepest[1] if deepest else None


def read_file_version(path: Path) -> tuple[int, ...] | None:
    """Return numbers that change with the file, its owner or its mode, or None if the file does not exist."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_size


def _unescape(text: str) -> str:
    """Replace the octal escapes of white space and backslashes."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
