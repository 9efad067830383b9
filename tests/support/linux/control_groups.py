"""Control groups in which a test runs a process under a limit. Creating one requires root."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.polling import wait_until

PERIOD_US = 100_000


class NoControlGroup(Exception):
    """This machine or this account cannot create a control group of this kind."""


class ControlGroup:
    """A control group (v1 or v2) below the one of this process. Raises NoControlGroup.

    `v1` and `v2` map the files of each version to their contents.
    """

    def __init__(self, controller: str, v1: dict[str, str], v2: dict[str, str]) -> None:
        groups = _read_groups()
        self._is_v1 = controller in groups
        root = Path("/sys/fs/cgroup", controller) if self._is_v1 else Path("/sys/fs/cgroup")
        self.path = root / groups.get(controller, groups.get("", "")) / f"atalaya-{controller}-{os.getpid()}"
        try:
            self.path.mkdir()
        except OSError as error:
            raise NoControlGroup(f"no {controller} cgroup can be made: {error.strerror}") from error
        try:
            for name, content in (v1 if self._is_v1 else v2).items():
                (self.path / name).write_text(content)
        except OSError as error:
            self.remove()
            raise NoControlGroup(f"the {controller} cgroup accepts no limit: {error.strerror}") from error

    @property
    def members(self) -> Path:
        """The file to which a process writes its id to join the group."""
        return self.path / "cgroup.procs"

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


class MemoryGroup(ControlGroup):
    """A group that limits the total memory of its processes; in version 2, also with limits of other controllers."""

    def __init__(self, limit_bytes: int, **v2: str) -> None:
        limit = str(limit_bytes)
        super().__init__("memory", {"memory.limit_in_bytes": limit}, {"memory.max": limit, **v2})

    def peak_bytes(self) -> int:
        return int(self._file("memory.max_usage_in_bytes", "memory.peak").read_text())

    def oom_kills(self) -> int:
        """Return how many processes of the group the kernel has killed because memory ran out."""
        lines = self._file("memory.oom_control", "memory.events").read_text().splitlines()
        return int(dict(line.split() for line in lines)["oom_kill"])


class ProcessorGroup(ControlGroup):
    """A group that limits the total processor time of its processes, as `docker run --cpus` does."""

    def __init__(self, processors: float) -> None:
        v1 = {"cpu.cfs_period_us": str(PERIOD_US), "cpu.cfs_quota_us": str(int(processors * PERIOD_US))}
        super().__init__("cpu", v1, _limit_processors(processors))


def _limit_processors(processors: float) -> dict[str, str]:
    """Return the limit's file of version 2."""
    return {"cpu.max": f"{int(processors * PERIOD_US)} {PERIOD_US}"}


def _read_groups() -> dict[str, str]:
    """Return the groups of this process by controller in version 1; that of version 2 under an empty name."""
    entries = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    return {name: group.lstrip("/") for _, names, group in entries for name in names.split(",")}


@contextmanager
def memory_group(limit_bytes: int) -> Iterator[MemoryGroup]:
    """Create a group that is removed at the end. Raises NoControlGroup."""
    group = MemoryGroup(limit_bytes)
    try:
        yield group
    finally:
        group.remove()


@contextmanager
def container_groups(processors: float, limit_bytes: int) -> Iterator[list[ControlGroup]]:
    """Create groups that limit both and are removed at the end: only one in version 2, as a process can join only one.

    Raises NoControlGroup.
    """
    groups: list[ControlGroup] = []
    try:
        if "memory" in _read_groups():
            groups.append(ProcessorGroup(processors))
            groups.append(MemoryGroup(limit_bytes))
        else:
            groups.append(MemoryGroup(limit_bytes, **_limit_processors(processors)))
        yield groups
    finally:
        for group in groups:
            group.remove()
