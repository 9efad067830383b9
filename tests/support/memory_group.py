"""A memory cgroup in which a test runs a process under a limit. Making one takes root."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.polling import wait_until


class NoMemoryGroup(Exception):
    """This machine or this account cannot make a memory cgroup."""


class MemoryGroup:
    """A memory cgroup (v1 or v2) below the one of this process. Raises NoMemoryGroup."""

    def __init__(self, limit_bytes: int) -> None:
        entries = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
        groups = {controllers: group.lstrip("/") for _, controllers, group in entries}
        self._is_v1 = "memory" in groups
        root = Path("/sys/fs/cgroup/memory" if self._is_v1 else "/sys/fs/cgroup")
        self.path = root / groups.get("memory", groups.get("", "")) / f"atalaya-{os.getpid()}"
        try:
            self.path.mkdir()
        except OSError as error:
            raise NoMemoryGroup(f"no memory cgroup can be made: {error.strerror}") from error
        try:
            self._file("memory.limit_in_bytes", "memory.max").write_text(str(limit_bytes))
        except OSError as error:
            self.remove()
            raise NoMemoryGroup(f"the memory cgroup accepts no limit: {error.strerror}") from error

    @property
    def members(self) -> Path:
        """The file to which a process writes its id to join the group."""
        return self.path / "cgroup.procs"

    def peak_bytes(self) -> int:
        return int(self._file("memory.max_usage_in_bytes", "memory.peak").read_text())

    def oom_kills(self) -> int:
        """How many processes of the group the kernel has killed because memory ran out."""
        lines = self._file("memory.oom_control", "memory.events").read_text().splitlines()
        return int(dict(line.split() for line in lines)["oom_kill"])

    def remove(self) -> None:
        """Remove the group once its last process has ended."""
        wait_until(self._was_removed, message=f"processes remain in {self.path}")

    def _was_removed(self) -> bool:
        try:
            self.path.rmdir()
        except OSError:
            return False
        return True

    def _file(self, v1: str, v2: str) -> Path:
        return self.path / (v1 if self._is_v1 else v2)


@contextmanager
def memory_group(limit_bytes: int) -> Iterator[MemoryGroup]:
    """A group that is removed at the end. Raises NoMemoryGroup."""
    group = MemoryGroup(limit_bytes)
    try:
        yield group
    finally:
        group.remove()
