"""The `atalaya` command. Exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted; an error is one line on stderr.

Importing this module loads next to nothing, so that Ctrl-C ends a command quietly while it is being
imported, too.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

from api.errors import EXIT_INTERRUPTED


def main() -> NoReturn:
    """Run one command and exit with its status."""
    # A parent process may have blocked the signal until here.
    signal.signal(signal.SIGINT, _exit_now)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    sys.unraisablehook = _report_unraisable
    status = run(sys.argv[1:])
    signal.signal(signal.SIGINT, _exit_now)
    if status == EXIT_INTERRUPTED:
        _exit_now()  # threads may be at work that nobody waits for any more
    sys.exit(status)


def run(arguments: list[str]) -> int:
    """Run one command; returns the exit status."""
    from api.commands.group import run_command

    return run_command(arguments)


def _exit_now(*_: object) -> NoReturn:
    os._exit(EXIT_INTERRUPTED)


def _report_unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    """Exit if Ctrl-C arrived where Python cannot raise, such as in a destructor."""
    if isinstance(unraisable.exc_value, KeyboardInterrupt):
        _exit_now()
    sys.__unraisablehook__(unraisable)
