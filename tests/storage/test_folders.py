"""Folders that several processes change."""

from __future__ import annotations

from pathlib import Path

import pytest

from storage.folders import try_lock_folder


def test_lock_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    """While the lock is held, a second caller continues without it; after it is released, the next caller gets it."""
    with try_lock_folder(tmp_path, ".one") as first, try_lock_folder(tmp_path, ".one") as second:
        assert (first, second) == (True, False)
    with try_lock_folder(tmp_path, ".one") as third, try_lock_folder(tmp_path, ".two") as other:
        assert (third, other) == (True, True)


def test_lock_is_no_link(tmp_path: Path) -> None:
    """A symbolic link in place of the lock is not followed."""
    (tmp_path / ".one").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"), try_lock_folder(tmp_path, ".one"):
        pass
    assert not (tmp_path / "elsewhere").exists()
