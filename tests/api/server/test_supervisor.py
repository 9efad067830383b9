"""What the supervisor does about workers that die or hang."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

SUPERVISOR = """
import os, signal, sys, time
from api.server.supervisor import Supervisor

def serve(slot):
    {serve}
    return 0

supervisor = Supervisor(
    2,
    serve,
    [],
    shutdown_limit_s={limit_s},
    on_ready=lambda: None,
    on_change=lambda pids: None,
    on_exit=lambda number: None,
)
sys.exit(supervisor.run())
"""


def run_supervisor(serve: str, limit_s: float = 60) -> subprocess.CompletedProcess[str]:
    """Run a supervisor whose workers execute `serve` and may take `limit_s` seconds to stop."""
    command = [sys.executable, "-c", SUPERVISOR.format(serve=serve.replace("\n", "\n    "), limit_s=limit_s)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_workers_that_die_while_starting_are_given_up() -> None:
    """Workers that die before they are ready are restarted with backoff; after five deaths the supervisor gives up."""
    started = time.monotonic()
    ended = run_supervisor("os.kill(os.getpid(), signal.SIGKILL)")
    assert ended.returncode == 1
    assert ended.stderr == "error: No worker became ready; signal 9 killed the last one.\n"
    assert ended.stdout.count("worker_died") == 5
    assert time.monotonic() - started > 0.25 + 0.5 + 1 + 2


def test_first_failure_that_names_its_reason_stops_the_supervisor() -> None:
    """If the first worker exits with an error, the supervisor stops, because others would fail in the same way."""
    ended = run_supervisor("raise OSError(28, 'No space left on device')")
    assert (ended.returncode, ended.stderr) == (1, "error: No space left on device\n")
    assert ended.stdout.count("worker_died") == 1


def test_worker_that_does_not_stop_is_killed() -> None:
    """A worker that ignores SIGTERM is killed after the limit, and the exit status is 1."""
    ended = run_supervisor(
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); os.write(slot.ready_pipe, b'1'); "
        "slot.number and os.kill(os.getppid(), signal.SIGTERM); time.sleep(60)",
        limit_s=0.5,
    )
    assert ended.returncode == 1
    assert ended.stdout.count("worker_killed") == 2


# The first worker dies five times. The other stops the supervisor after the supervisor noticed the last death.
DYING = """
os.write(slot.ready_pipe, b"1")
if slot.number == 0:
    with open({pids!r}, "a") as file:
        print(os.getpid(), file=file)
    if len(open({pids!r}).readlines()) <= 5:
        os.kill(os.getpid(), signal.SIGKILL)
else:
    while len(dead := open({pids!r}).readlines()) < 5 or os.path.exists("/proc/" + dead[4].strip()):
        time.sleep(0.01)
    os.kill(os.getppid(), signal.SIGTERM)
time.sleep(60)
"""


def test_worker_that_dies_while_serving_is_replaced_with_backoff(tmp_path: Path) -> None:
    """A worker that dies repeatedly after it was ready is replaced with growing delays, and never given up."""
    started, pids = time.monotonic(), tmp_path / "pids"
    pids.touch()  # the other worker may read it before the first one, which is ready already, writes to it
    ended = run_supervisor(DYING.format(pids=str(pids)))
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.count("worker_died") == 5
    assert 0.5 + 1 + 2 < time.monotonic() - started < 60  # the surviving worker would sleep for another minute
