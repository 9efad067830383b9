"""What the supervisor does about workers that die or hang."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from api.server.supervisor import MAX_MISSED_CHECKS

SUPERVISOR = """
import asyncio, os, signal, sys, time
from api.server import supervisor, worker_process

supervisor.CHECK_INTERVAL_S = {check_interval_s}

def serve(slot):
    {serve}
    return 0

running = supervisor.Supervisor(
    2,
    serve,
    [],
    shutdown_limit_s={limit_s},
    on_ready=lambda: None,
    on_change=lambda pids: None,
    on_exit=lambda number: None,
)
sys.exit(running.run())
"""


def run_supervisor(serve: str, limit_s: float = 60, check_interval_s: float = 3600) -> subprocess.CompletedProcess[str]:
    """Run a supervisor whose workers execute `serve` and may take `limit_s` seconds to stop."""
    serve = serve.replace("\n", "\n    ")
    program = SUPERVISOR.format(serve=serve, limit_s=limit_s, check_interval_s=check_interval_s)
    command = [sys.executable, "-c", program]
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
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); os.write(slot.beat_pipe, b'1'); "
        "slot.number and os.kill(os.getppid(), signal.SIGTERM); time.sleep(60)",
        limit_s=0.5,
    )
    assert ended.returncode == 1
    assert ended.stdout.count("worker_killed") == 2


# The first worker dies five times. The other stops the supervisor after the supervisor noticed the last death.
DYING = """
os.write(slot.beat_pipe, b"1")
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


# The first process of slot 0 hangs. The worker of slot 1 stops the supervisor after enough checks of the beats.
HANGING = """
async def serve_and_hang():
    slot.report_ready()
    if slot.number == 0 and not os.path.exists({hung!r}):
        open({hung!r}, "w").close()
        time.sleep(120)
    await asyncio.sleep({serving_s})
    os.kill(os.getppid(), signal.SIGTERM)
    await asyncio.sleep(60)

worker_process.BEAT_INTERVAL_S = 0.05
asyncio.run(serve_and_hang())
"""


def test_a_worker_whose_event_loop_hangs_is_replaced(tmp_path: Path) -> None:
    """A worker that has missed the checks is killed and replaced, and one that serves for longer is not."""
    interval_s = 0.75
    serving_s = 2 * MAX_MISSED_CHECKS * interval_s
    ended = run_supervisor(
        HANGING.format(hung=str(tmp_path / "hung"), serving_s=serving_s), check_interval_s=interval_s
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("worker_killed") == 1
    assert "its event loop hangs" in ended.stdout
    assert ended.stdout.count("worker_died") == 1
    assert ended.stdout.count("worker_ready") == 3
