"""Runs several workers behind one port: replaces those that die, restarts them one by one, and stops them together.

The supervisor has imported everything and opened nothing. The workers it forks share its memory and are ready in a
fraction of a second. It handles no request, so that nothing a client sends can crash it.
"""

from __future__ import annotations

import math
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Sequence

import structlog
from msgspec import Struct, field

from api.server.exit_status import print_error
from api.server.shared_directory import Processes
from api.server.stop_signals import STOP_SIGNALS
from api.server.worker_process import WorkerSlot, fork, signal_pipe

READY_LIMIT_S = 60.0
STABLE_S = 10.0  # a worker that has served for this long did not fail at the start
FIRST_BACKOFF_S, MAX_BACKOFF_S = 0.25, 30.0
MAX_FAILED_STARTS = 5
CHECK_INTERVAL_S = 5.0  # of the beats of each worker
MAX_MISSED_CHECKS = 6

log = structlog.get_logger("atalaya.workers")


class _Worker(Struct, eq=False):
    pid: int
    slot: int
    beat_pipe: int
    pipe_closed: bool = False
    missed_checks: int = 0
    stopping: bool = False
    ready_at: float | None = None
    started_at: float = field(default_factory=time.monotonic)
    kill_at: float = math.inf


class Supervisor:
    """Keeps `count` workers running; each runs `serve` and exits with the status that it returns.

    The workers share `listeners`. A worker that does not exit within `shutdown_limit_s` is killed, and so is one whose
    event loop hangs. `on_ready` is called when the first worker serves. `on_change` receives the processes whenever one
    starts or exits, `on_exit(number)` the slot of a worker that has exited.
    """

    def __init__(
        self,
        count: int,
        serve: Callable[[WorkerSlot], int],
        listeners: Sequence[socket.socket],
        *,
        shutdown_limit_s: float,
        on_ready: Callable[[], None],
        on_change: Callable[[Processes], None],
        on_exit: Callable[[int], None],
    ) -> None:
        self._count = count
        self._serve = serve
        self._listeners = listeners
        self._shutdown_limit_s = shutdown_limit_s
        self._check_at = math.inf
        self._on_ready = on_ready
        self._on_change = on_change
        self._on_exit = on_exit
        self._workers: list[_Worker] = []
        self._to_replace: list[_Worker] = []
        self._stopping = False
        self._has_served = False
        self._failures = 0  # since a worker was stable
        self._restarts = 0
        self._start_at = 0.0
        self._status: int | None = None
        self._signalled_at: float | None = None
        # Only the supervisor holds the write end: workers see the read end close when it dies.
        self._parent_pipe, self._write_end = os.pipe()

    @property
    def signalled_at(self) -> float | None:
        """The monotonic time of the first signal to stop."""
        return self._signalled_at

    def run(self) -> int:
        """Run until a signal stops all workers, or none can be started; returns the exit status."""
        with signal_pipe() as signals:
            while self._status is None or self._workers:
                self._update_workers()
                self._wait(signals)
                self._reap()
        return self._status

    def _serving(self) -> list[_Worker]:
        return [worker for worker in self._workers if not worker.stopping]

    def _may_start(self) -> bool:
        """Return whether a worker may start: they start one at a time, and during a restart they stop one at a time."""
        serving = self._serving()
        if self._stopping or any(worker.ready_at is None for worker in serving):
            return False
        return len(serving) < self._count or (bool(self._to_replace) and len(self._workers) == self._count)

    def _update_workers(self) -> None:
        """Kill overdue workers, start a missing one, and stop the next one that a restart replaces."""
        now = time.monotonic()
        for worker in self._workers:
            if now >= worker.kill_at:
                worker.kill_at = math.inf
                _kill(worker, "it did not start or stop in time")
        if now >= self._check_at:
            self._check_at = now + CHECK_INTERVAL_S
            self._check_beats()
        if self._may_start() and now >= self._start_at:
            self._start_worker()
        ready = [worker for worker in self._serving() if worker.ready_at is not None]
        if self._to_replace and len(ready) > self._count:
            self._stop_worker(self._to_replace.pop(0), signal.SIGTERM)

    def _wait(self, signals: int) -> None:
        """Wait for a signal, a report from a worker, or the time at which something is due."""
        due = [self._check_at, *(worker.kill_at for worker in self._workers)]
        due += [self._start_at] if self._may_start() else []
        timeout_s = max(0.0, min(due, default=math.inf) - time.monotonic())
        pipes = {worker.beat_pipe: worker for worker in self._workers if not worker.pipe_closed}
        readable, _, _ = select.select([signals, *pipes], [], [], None if math.isinf(timeout_s) else timeout_s)
        for pipe in readable:
            if pipe == signals:
                for number in os.read(signals, 1024):
                    self._handle_signal(number)
            else:
                self._read_beats(pipes[pipe])

    def _handle_signal(self, number: int) -> None:
        if number in STOP_SIGNALS:
            # A second Ctrl-C means that the user does not want to wait: pass it on to stopping workers, too.
            repeated = self._stopping and number == signal.SIGINT
            self._stopping, self._status = True, self._status or 0
            self._signalled_at = self._signalled_at or time.monotonic()
            # Otherwise the kernel would queue connections that no worker accepts.
            for listener in self._listeners:
                listener.close()
            for worker in self._workers if repeated else self._serving():
                self._stop_worker(worker, number)
        elif number == signal.SIGHUP and not self._stopping:
            self._to_replace = self._serving()
            log.info("workers_restarting", workers=len(self._to_replace))

    def _start_worker(self) -> None:
        taken = {worker.slot for worker in self._workers}
        number = next(number for number in range(len(taken) + 1) if number not in taken)
        read_end, beat_pipe = os.pipe()
        slot = WorkerSlot(number, self._parent_pipe, beat_pipe)
        pid = fork(lambda: self._serve(slot), closing=[self._write_end, read_end])
        os.close(beat_pipe)
        worker = _Worker(pid, number, read_end)
        worker.kill_at = worker.started_at + READY_LIMIT_S
        self._workers.append(worker)
        self._report_processes()

    def _stop_worker(self, worker: _Worker, number: int) -> None:
        worker.stopping = True
        worker.kill_at = time.monotonic() + self._shutdown_limit_s
        os.kill(worker.pid, number)

    def _check_beats(self) -> None:
        """Kill the workers that have missed too many checks.

        Counting checks instead of seconds does not kill the workers of a container that was frozen.
        """
        for worker in self._serving():
            if worker.ready_at is not None:
                worker.missed_checks += 1
                if worker.missed_checks >= MAX_MISSED_CHECKS:
                    _kill(worker, "its event loop hangs")

    def _read_beats(self, worker: _Worker) -> None:
        """Read the worker's pipe, which is at its end when the worker has died. SIGCHLD reports that, too."""
        worker.pipe_closed = not os.read(worker.beat_pipe, 1024)
        worker.missed_checks = 0
        if worker.ready_at is None and not worker.pipe_closed:
            self._record_ready(worker)

    def _record_ready(self, worker: _Worker) -> None:
        worker.ready_at = time.monotonic()
        worker.kill_at = worker.kill_at if worker.stopping else math.inf
        if not self._has_served:
            self._has_served = True
            self._check_at = worker.ready_at + CHECK_INTERVAL_S
            self._on_ready()
        log.info("worker_ready", pid=worker.pid, seconds=round(worker.ready_at - worker.started_at, 3))

    def _reap(self) -> None:
        for worker in list(self._workers):
            pid, wait_status = os.waitpid(worker.pid, os.WNOHANG)
            if pid:
                os.close(worker.beat_pipe)
                self._workers.remove(worker)
                self._to_replace = [other for other in self._to_replace if other is not worker]
                self._on_exit(worker.slot)
                self._handle_exit(worker, os.waitstatus_to_exitcode(wait_status))
                self._report_processes()

    def _handle_exit(self, worker: _Worker, status: int) -> None:
        """Decide what follows from a worker's exit; `status` is negative if a signal has killed it."""
        if worker.stopping:
            log.info("worker_ended", pid=worker.pid, exit_status=status)
            self._status = 1 if self._stopping and status else self._status
            return
        log.error("worker_died", pid=worker.pid, exit_status=status)
        self._restarts += 1
        if worker.ready_at is None and self._to_replace:
            log.error("workers_not_restarted", policy="the old workers keep serving")
            self._to_replace.clear()
        self._schedule_start(worker)
        # If the first worker exits by itself, it has printed the reason, which the next one would only repeat.
        if not self._has_served and (status > 0 or self._failures == MAX_FAILED_STARTS):
            self._stopping = True
            message = f"No worker became ready; signal {-status} killed the last one."
            self._status = status if status > 0 else print_error(message)

    def _schedule_start(self, died: _Worker) -> None:
        """Start the next worker now, or with exponential backoff if workers keep dying."""
        now = time.monotonic()
        stable = died.ready_at is not None and now - died.ready_at > STABLE_S
        self._failures = 0 if stable else self._failures + 1
        if stable or (died.ready_at is not None and self._failures == 1):
            self._start_at = now
        else:
            self._start_at = now + min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2 ** (self._failures - 1))

    def _report_processes(self) -> None:
        pids = [os.getpid(), *(worker.pid for worker in self._workers)]
        self._on_change(Processes(pids, self._restarts))


def _kill(worker: _Worker, reason: str) -> None:
    log.error("worker_killed", pid=worker.pid, reason=reason)
    os.kill(worker.pid, signal.SIGKILL)
