"""Several workers behind one port: started, replaced when they die, restarted one by one, and ended together.

Workers are forked from a process that has imported everything and opened nothing: they share its memory, and a new
one is ready in a fraction of a second. That process serves nobody, so nothing that a caller sends can harm it.
"""

from __future__ import annotations

import asyncio
import gc
import math
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module

import structlog

from api.commands.output import exit_status, fail

READY_LIMIT_S = 60.0
STEADY_S = 10.0  # who has served for so long did not die of its start
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 30.0
MOST_FAILED_STARTS = 5
_STOPPING = (signal.SIGTERM, signal.SIGINT)
_SIGNALS = (*_STOPPING, signal.SIGHUP, signal.SIGCHLD)

log = structlog.get_logger("atalaya.workers")


@dataclass(frozen=True, slots=True)
class WorkerSlot:
    """A worker's number among the others, and how it and its parent know of each other.

    The descriptor `parent` becomes readable when the parent has gone.
    """

    number: int
    parent: int
    ready: int

    def begin(self) -> None:
        """Tell that the worker serves, from within its event loop."""
        asyncio.get_running_loop().add_reader(self.parent, self._orphaned)
        os.write(self.ready, b"1")

    def _orphaned(self) -> None:
        asyncio.get_running_loop().remove_reader(self.parent)
        log.error("parent_died", policy="stop as if told to")
        os.kill(os.getpid(), signal.SIGTERM)


@dataclass(slots=True, eq=False)
class _Worker:
    pid: int
    place: int
    pipe: int
    heard: bool = False
    leaving: bool = False
    ready_at: float | None = None
    started_at: float = field(default_factory=time.monotonic)
    kill_at: float = math.inf


class Workers:
    """Keeps `count` workers; each runs `serve` and ends with the status that it returns.

    They share `listeners`. `end_limit_s` is how long one may take to end. `on_change(pids)` is told the processes,
    this one first, and `on_end(place)` where one has ended.
    """

    def __init__(
        self,
        count: int,
        serve: Callable[[WorkerSlot], int],
        listeners: Sequence[socket.socket],
        *,
        end_limit_s: float,
        on_change: Callable[[list[int]], None],
        on_end: Callable[[int], None],
    ) -> None:
        self._count = count
        self._serve = serve
        self._listeners = listeners
        self._end_limit_s = end_limit_s
        self._on_change = on_change
        self._on_end = on_end
        self._workers: list[_Worker] = []
        self._to_replace: list[_Worker] = []
        self._stopping = False
        self._served = False
        self._failures = 0
        self._start_at = 0.0
        self._status: int | None = None
        self._parent, self._life = os.pipe()

    def run(self) -> int:
        """Until a signal ends them all, or none can be started; returns the exit status."""
        with _signals() as wakeup:
            while self._status is None or self._workers:
                self._tend()
                self._wait(wakeup)
                self._reap()
        return self._status

    def _serving(self) -> list[_Worker]:
        return [worker for worker in self._workers if not worker.leaving]

    def _may_start(self) -> bool:
        """One at a time starts, and in a restart one at a time leaves."""
        serving = self._serving()
        if self._stopping or any(worker.ready_at is None for worker in serving):
            return False
        return len(serving) < self._count or (bool(self._to_replace) and len(self._workers) == self._count)

    def _tend(self) -> None:
        """Do what is due."""
        now = time.monotonic()
        for worker in self._workers:
            if now >= worker.kill_at:
                log.error("worker_killed", pid=worker.pid, reason="it took too long")
                os.kill(worker.pid, signal.SIGKILL)
                worker.kill_at = math.inf
        if self._may_start() and now >= self._start_at:
            self._start()
        ready = [worker for worker in self._serving() if worker.ready_at is not None]
        if self._to_replace and len(ready) > self._count:
            self._end(self._to_replace.pop(0), signal.SIGTERM)

    def _wait(self, wakeup: int) -> None:
        """Until a signal, news from a worker, or the time to do something."""
        due = [worker.kill_at for worker in self._workers] + ([self._start_at] if self._may_start() else [])
        patience_s = max(0.0, min(due, default=math.inf) - time.monotonic())
        pipes = {worker.pipe: worker for worker in self._workers if not worker.heard}
        readable, _, _ = select.select([wakeup, *pipes], [], [], None if math.isinf(patience_s) else patience_s)
        for pipe in readable:
            if pipe == wakeup:
                for number in os.read(wakeup, 1024):
                    self._take(number)
            else:
                self._hear(pipes[pipe])

    def _take(self, number: int) -> None:
        if number in _STOPPING:
            # Whoever asks twice at a terminal does not want to wait.
            again = self._stopping and number == signal.SIGINT
            self._stopping, self._status = True, self._status or 0
            # Else the kernel would go on taking connections, for nobody.
            for listener in self._listeners:
                listener.close()
            for worker in self._workers if again else self._serving():
                self._end(worker, number)
        elif number == signal.SIGHUP and not self._stopping:
            self._to_replace = self._serving()
            log.info("workers_restarting", workers=len(self._to_replace))

    def _end(self, worker: _Worker, number: int) -> None:
        worker.leaving = True
        worker.kill_at = time.monotonic() + self._end_limit_s
        os.kill(worker.pid, number)

    def _start(self) -> None:
        taken = {worker.place for worker in self._workers}
        place = next(number for number in range(len(taken) + 1) if number not in taken)
        pipe, tell = os.pipe()
        pid = fork(lambda: self._serve(WorkerSlot(place, self._parent, tell)), closing=[self._life, pipe])
        os.close(tell)
        worker = _Worker(pid, place, pipe)
        worker.kill_at = worker.started_at + READY_LIMIT_S
        self._workers.append(worker)
        self._tell_processes()

    def _hear(self, worker: _Worker) -> None:
        """It is ready, or says nothing because it has died; that a signal tells."""
        worker.heard = True
        if not os.read(worker.pipe, 1):
            return
        worker.ready_at = time.monotonic()
        worker.kill_at = worker.kill_at if worker.leaving else math.inf
        self._served = True
        log.info("worker_ready", pid=worker.pid, seconds=round(worker.ready_at - worker.started_at, 3))

    def _reap(self) -> None:
        for worker in list(self._workers):
            pid, wait_status = os.waitpid(worker.pid, os.WNOHANG)
            if pid:
                os.close(worker.pipe)
                self._workers.remove(worker)
                self._to_replace = [other for other in self._to_replace if other is not worker]
                self._on_end(worker.place)
                self._tell_processes()
                self._judge(worker, os.waitstatus_to_exitcode(wait_status))

    def _judge(self, worker: _Worker, status: int) -> None:
        """What follows from a worker's end; `status` is negative where a signal has ended it."""
        if worker.leaving:
            log.info("worker_ended", pid=worker.pid, status=status)
            self._status = 1 if self._stopping and status else self._status
            return
        log.error("worker_died", pid=worker.pid, status=status)
        if worker.ready_at is None and self._to_replace:
            log.error("workers_not_restarted", policy="the old ones serve on")
            self._to_replace.clear()
        now = time.monotonic()
        steady = worker.ready_at is not None and now - worker.ready_at > STEADY_S
        self._failures = 0 if steady else self._failures + 1
        at_once = steady or (worker.ready_at is not None and self._failures == 1)
        self._start_at = now if at_once else now + min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (self._failures - 1))
        # A first one that ends by itself has said why, and the next would only say it again.
        if not self._served and (status > 0 or self._failures == MOST_FAILED_STARTS):
            self._stopping = True
            self._status = status if status > 0 else fail(f"No worker became ready; signal {-status} ended the last.")

    def _tell_processes(self) -> None:
        self._on_change([os.getpid(), *(worker.pid for worker in self._workers)])


@contextmanager
def _signals() -> Iterator[int]:
    """A pipe that becomes readable with the signals that count here; each is a byte."""
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.set_blocking(write, False)
    for number in _SIGNALS:
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    try:
        yield read
    finally:
        signal.set_wakeup_fd(-1)


def freeze_imports() -> None:
    """Import what every worker needs, once for all, and keep the garbage collector off it: pages stay shared."""
    for name in ("api.app", "api.commands.users", "api.server.process", "monitoring.exposition"):
        import_module(name)
    gc.collect()
    gc.freeze()


def fork(act: Callable[[], int], closing: Sequence[int] = ()) -> int:
    """Start a child process that runs `act` and ends with the status it returns; returns its process id."""
    sys.stdout.flush()
    sys.stderr.flush()
    # A signal that is meant for the child must not be taken for one to the parent.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        pid = os.fork()
        if pid:
            return pid
        status = 1
        try:
            for descriptor in closing:
                os.close(descriptor)
            _forget_parent()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            status = exit_status(act)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


def _forget_parent() -> None:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    for number in _STOPPING:  # who is told to stop while it starts has not failed
        signal.signal(number, lambda *_: sys.exit(0))
    os.setpgid(0, 0)  # what a terminal sends to all goes by way of the parent
