"""Files that only their owner can read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from storage.private_files import replace_private_file


def test_a_file_is_durable_before_it_replaces_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The content is synced to disk before the file gets its name, and the name before the context ends."""
    steps: list[tuple[str, str]] = []
    sync, replace = os.fsync, os.replace
    path = tmp_path / "secret"
    path.write_text("old")

    def record_sync(descriptor: int) -> None:
        sync(descriptor)
        synced = Path(f"/proc/self/fd/{descriptor}").readlink()
        steps.append(("sync folder", path.read_text()) if synced == tmp_path else ("sync file", synced.read_text()))

    def record_replace(source: Any, target: Any) -> None:
        steps.append(("replace", Path(target).read_text()))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", record_sync)
    monkeypatch.setattr(os, "replace", record_replace)
    with replace_private_file(path) as (_, file):
        file.write("new")
    assert steps == [("sync file", "new"), ("replace", "old"), ("sync folder", "new")]
    assert path.stat().st_mode & 0o777 == 0o600
