"""Control groups in which a test runs a process under a limit. Making one takes root."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.polling import wait_until

PERIOD_US = 100_000


class NoControlGroup(Exception):
    """This machine or this account cannot make a control group of this kind."""


class ControlGroup:
    """A control group (v1 or v2) below the one of this process. Raises NoControlGroup.

    `v1` and `v2` map the files of each version to their contents.
    """

    def __init__(self, controller: str, v1: dict[str, str], v2: dict[str, str]) -> None:
        entries = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
        groups = {name: group.lstrip("/") for _, names, group in entries for name in names.split(",")}
        self._is_v1 = controller in groups
        root = Path("/sys/fs/cgroup", controller) if self._is_v1 else Path("/sys/fs/cgroup")
        self.path = root / groups.get(controller, groups.get("", "")) / f"atalaya-{os.getpid()}"
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
    """A group whose processes together may use so much memory."""

    def __init__(self, limit_bytes: int) -> None:
        limit = str(limit_bytes)
        super().__init__("memory", {"memory.limit_in_bytes": limit}, {"memory.max": limit})

    def peak_bytes(self) -> int:
        return int(self._file("memory.max_usage_in_bytes", "memory.peak").read_text())

    def oom_kills(self) -> int:
        """How many processes of the group the kernel has killed because memory ran out."""
        lines = self._file("memory.oom_control", "memory.events").read_text().splitlines()
        return int(dict(line.split() for line in lines)["oom_kill"])


class ProcessorGroup(ControlGroup):
    """A group whose processes together may use so many processors, as `docker run --cpus` sets it."""

    def __init__(self, processors: float) -> None:
        quota = int(processors * PERIOD_US)
        v1 = {"cpu.cfs_period_us": str(PERIOD_US), "cpu.cfs_quota_us": str(quota)}
        super().__init__("cpu", v1, {"cpu.max": f"{quota} {PERIOD_US}"})


@contextmanager
def memory_group(limit_bytes: int) -> Iterator[MemoryGroup]:
    """A group that is removed at the end. Raises NoControlGroup."""
    group = MemoryGroup(limit_bytes)
    try:
        yield group
    finally:
        group.remove()


@contextmanager
def processor_group(processors: float) -> Iterator[ProcessorGroup]:
    """A group that is removed at the end. Raises NoControlGroup."""
    group = ProcessorGroup(processors)
    try:
        yield group
    finally:
        group.remove()
