"""The parent of the workers: what it does about those that die."""

from __future__ import annotations

import subprocess
import sys
import time

PARENT = """
import os, signal, sys, time
from api.server.supervisor import Workers

def serve(place):
    {serve}
    return 0

status = Workers(2, serve, [], end_limit_s=0.5, on_change=lambda pids: None, on_end=lambda place: None).run()
sys.exit(status)
"""


def parent(serve: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PARENT.format(serve=serve)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_dying_at_the_start() -> None:
    """Workers that are killed before they are ready are tried ever more slowly, then given up in one line."""
    started = time.monotonic()
    ended = parent("os.kill(os.getpid(), signal.SIGKILL)")
    assert ended.returncode == 1
    assert ended.stderr == "error: No worker became ready; signal 9 ended the last.\n"
    assert ended.stdout.count("worker_died") == 5
    assert time.monotonic() - started > 0.25 + 0.5 + 1 + 2


def test_failing_at_the_start() -> None:
    """A first worker that says what is wrong is not followed by others that would say it again."""
    ended = parent("raise OSError(28, 'No space left on device')")
    assert (ended.returncode, ended.stderr) == (1, "error: No space left on device\n")
    assert ended.stdout.count("worker_died") == 1


def test_one_that_does_not_end_is_killed() -> None:
    """A worker that ignores the signal to stop is killed when its time is up, and the status tells."""
    ended = parent(
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); os.write(place.ready, b'1'); "
        "place.number and os.kill(os.getppid(), signal.SIGTERM); time.sleep(60)"
    )
    assert ended.returncode == 1
    assert ended.stdout.count("worker_killed") == 2


def test_dying_while_serving() -> None:
    """A worker that dies again and again after it was ready is replaced ever more slowly, and never given up."""
    started = time.monotonic()
    ended = parent(
        "os.write(place.ready, b'1'); "
        "place.number or (time.sleep(0.01), os.kill(os.getpid(), signal.SIGKILL)); "
        "time.sleep(4); os.kill(os.getppid(), signal.SIGTERM); time.sleep(60)"
    )
    assert ended.returncode == 0
    assert 4 <= ended.stdout.count("worker_died") <= 6
    assert 4 < time.monotonic() - started < 20
