"""Processes that are killed while they change a registry."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from typing import Any

FORK = multiprocessing.get_context("fork")
# The functions of `os` with which a writer changes the disk.
_DISK_CALLS = ("mkdir", "open", "fsync", "rename", "replace")


def run_until_crash(step: int, action: Callable[[], object]) -> int | None:
    """Run the action in a process that is killed at its `step`-th call that changes the disk; returns the status."""
    process = FORK.Process(target=_crash_at, args=(step, action))
    process.start()
    process.join()
    return process.exitcode


def _crash_at(step: int, action: Callable[[], object]) -> None:
    calls = iter(range(step))

    def wrap(call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            if next(calls, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **options)

        return counted

    for name in _DISK_CALLS:
        setattr(os, name, wrap(getattr(os, name)))
    action()
