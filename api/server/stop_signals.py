"""Handlers of SIGTERM and SIGINT for a process before it serves, and while it serves."""

from __future__ import annotations

import os
import signal
import sys

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def exit_at_stop_signals(terminated: int, interrupted: int) -> None:
    """Exit at once with these statuses for SIGTERM and SIGINT, while there is nothing to clean up.

    An exception would have to pass through imports, and some libraries replace it with an error of their own.
    """
    for number, status in zip(STOP_SIGNALS, (terminated, interrupted), strict=True):
        signal.signal(number, lambda *_, status=status: os._exit(status))


def raise_at_stop_signals() -> None:
    """Raise SystemExit or KeyboardInterrupt. While GatewayServer runs, its own handlers replace these."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, signal.default_int_handler)
