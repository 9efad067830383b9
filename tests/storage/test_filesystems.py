"""Finding the kind of file system that a path is on."""

from __future__ import annotations

from pathlib import Path

import pytest

from storage.filesystems import EPHEMERAL_FILESYSTEMS, find_filesystem

MOUNTS = r"""
30 1 0:27 / / rw,relatime master:1 - overlay overlay rw,lowerdir=/l,upperdir=/u,workdir=/w
31 30 0:28 / /app/var rw - tmpfs tmpfs rw
32 30 254:1 /data /app/var rw,relatime - ext4 /dev/vda1 rw
33 30 0:29 / /app/with\040space rw - xfs /dev/vdb rw
34 30 0:30 / /dev/shm rw,nosuid - tmpfs shm rw,size=65536k
"""


@pytest.mark.parametrize(
    ("path", "filesystem"),
    [
        ("/app/atalaya.db", "overlay"),
        ("/app/var/atalaya.db", "ext4"),
        ("/app/variable/atalaya.db", "overlay"),
        ("/app/with space/atalaya.db", "xfs"),
        ("/dev/shm/atalaya.db", "tmpfs"),  # noqa: S108
    ],
)
def test_the_innermost_and_newest_mount_counts(tmp_path: Path, path: str, filesystem: str) -> None:
    """A path is on the file system of the innermost mount above it and, of several mounts there, the newest one."""
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS.lstrip())
    assert find_filesystem(Path(path), mounts) == filesystem


def test_memory_is_ephemeral() -> None:
    """The running machine's own shared memory is recognised as a file system that does not last."""
    assert find_filesystem(Path("/dev/shm/atalaya.db")) in EPHEMERAL_FILESYSTEMS  # noqa: S108


def test_a_system_without_the_list_of_mounts_has_no_known_filesystem(tmp_path: Path) -> None:
    """If the kernel lists no mounts, the file system is unknown."""
    assert find_filesystem(Path("/"), tmp_path / "absent") is None
