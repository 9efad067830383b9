"""Replaces a process that has no supervisor: it executes its program again, with the same id and the same listeners.

Executing a program ends all threads of the process, whatever they are doing. Meanwhile the kernel keeps the connections
of new clients in the backlog of the listeners, so that none is refused.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from msgspec import Struct

from monitoring.logs.outputs import drain_logs

INHERIT_OPTION = "--inherit"
_HELD_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

Sockets = Mapping[str, Sequence[socket.socket]]


class Inheritance(Struct, frozen=True):
    """What a process takes over from the program that executed it: listeners by use, and the count of stuck jobs."""

    listeners: Sockets
    stuck_jobs: int

    @classmethod
    def take_over(cls, text: str) -> Inheritance:
        """Read the value of INHERIT_OPTION."""
        document = json.loads(text)
        listeners = {
            use: [_take_over(descriptor) for descriptor in descriptors]
            for use, descriptors in document["listeners"].items()
        }
        return cls(listeners, document["stuck_jobs"])


class Successor:
    """The next program of this process. `count_stuck_jobs` returns the count from which it continues."""

    def __init__(self, listeners: Sockets, count_stuck_jobs: Callable[[], int]) -> None:
        self._listeners = listeners
        self._count_stuck_jobs = count_stuck_jobs
        self._kept: Sockets | None = None

    def keep_listeners(self) -> None:
        """Keep the ports open from now on, even after this process has closed its sockets."""
        if self._kept is None:
            self._kept = {use: [one.dup() for one in sockets] for use, sockets in self._listeners.items()}

    def drop_listeners(self) -> None:
        """Undo `keep_listeners`."""
        for sockets in (self._kept or {}).values():
            for one in sockets:
                one.close()
        self._kept = None

    def start(self) -> NoReturn:
        """Execute the program. Any thread may call this, even while others are still running.

        Stop signals are blocked until the new program has handlers for them.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_SIGNALS)
        signal.setitimer(signal.ITIMER_REAL, 0)
        self.keep_listeners()
        drain_logs()
        os.execv(sys.executable, _make_arguments(sys.orig_argv, self._encode_inheritance()))  # noqa: S606  (its own arguments)

    def _encode_inheritance(self) -> str:
        kept = self._kept or {}
        for sockets in kept.values():
            for one in sockets:
                one.set_inheritable(True)
        descriptors = {use: [one.fileno() for one in sockets] for use, sockets in kept.items()}
        return json.dumps({"listeners": descriptors, "stuck_jobs": self._count_stuck_jobs()})


def release_held_signals() -> None:
    """Unblock the signals that `Successor.start` has blocked. Call this once their handlers are set."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD_SIGNALS)


def _take_over(descriptor: int) -> socket.socket:
    listener = socket.socket(fileno=descriptor)
    listener.set_inheritable(False)
    return listener


def _make_arguments(current: Sequence[str], inheritance: str) -> list[str]:
    """Return the arguments of this program with the new value of INHERIT_OPTION. `demo` continues as `serve`."""
    at = next(index for index, argument in enumerate(current) if argument in ("serve", "demo"))
    options = list(current[at + 1 :]) if current[at] == "serve" else []
    if INHERIT_OPTION in options:
        before = options.index(INHERIT_OPTION)
        del options[before : before + 2]
    return [*current[:at], "serve", *options, INHERIT_OPTION, inheritance]
