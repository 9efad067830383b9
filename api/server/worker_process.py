"""Worker processes: how they are forked, and how they and the supervisor notice each other's exit."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module

import structlog
from msgspec import Struct

from api.server.exit_status import run_to_exit_status
from api.server.stop_signals import STOP_SIGNALS, exit_at_stop_signals
from monitoring.logs.outputs import drain_logs

BEAT_INTERVAL_S = 2.0
_SIGNALS = (*STOP_SIGNALS, signal.SIGHUP, signal.SIGCHLD)

log = structlog.get_logger("atalaya.workers")


class WorkerSlot(Struct, frozen=True):
    """A worker's number, and its pipes to the supervisor.

    `parent_pipe` becomes readable when the supervisor has died. The first byte in `beat_pipe` reports that the worker
    serves, each further byte that its event loop still runs.
    """

    number: int
    parent_pipe: int
    beat_pipe: int

    def report_ready(self) -> None:
        """Report from now on that the worker serves, and stop it if the supervisor dies; called in its event loop."""
        asyncio.get_running_loop().add_reader(self.parent_pipe, self._stop_orphan)
        os.set_blocking(self.beat_pipe, False)
        self._beat()

    def _beat(self) -> None:
        with suppress(BlockingIOError, BrokenPipeError):  # the supervisor is paused, or has died
            os.write(self.beat_pipe, b"1")
        asyncio.get_running_loop().call_later(BEAT_INTERVAL_S, self._beat)

    def _stop_orphan(self) -> None:
        asyncio.get_running_loop().remove_reader(self.parent_pipe)
        log.error("parent_died", policy="the worker shuts down gracefully")
        os.kill(os.getpid(), signal.SIGTERM)


def preload(modules: Sequence[str]) -> None:
    """Import what every worker needs, and exempt it from garbage collection, so that workers share its memory."""
    for name in modules:
        import_module(name)
    gc.collect()
    gc.freeze()


def fork(action: Callable[[], int], closing: Sequence[int] = ()) -> int:
    """Start a child process that closes `closing` and exits with the status of `action`; returns the process id."""
    sys.stdout.flush()
    sys.stderr.flush()
    # Until the child has its own handlers, a signal to it would run those of the parent.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        pid = os.fork()
        if pid:
            return pid
        status = 1
        try:
            for descriptor in closing:
                os.close(descriptor)
            _reset_signals()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            status = run_to_exit_status(action)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            drain_logs()
            os._exit(status)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextmanager
def signal_pipe() -> Iterator[int]:
    """Yield a pipe that receives one byte, the signal's number, for each signal to the supervisor."""
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


def _reset_signals() -> None:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    exit_at_stop_signals(0, 0)  # a worker that is stopped while it starts has not failed
    os.setpgid(0, 0)  # a terminal's Ctrl-C goes to the supervisor only, which passes it on
