"""The `atalaya` command. Exit status: 0 success, 1 failure, 2 usage error, 130 Ctrl-C; an error is one line on stderr.

This module imports only modules that are already loaded, so that even an early Ctrl-C causes no traceback.
"""

from __future__ import annotations

import os
import sys

from api import SERVING_COMMANDS

_INTERRUPTED = 130  # EXIT_INTERRUPTED in api/errors.py, which takes time to import


def main() -> None:
    """Run one command and exit with its status."""
    try:
        import signal

        # Until a command begins, there is nothing to clean up. A parent process may have blocked the signal until here.
        signal.signal(signal.SIGINT, _exit_now)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        sys.unraisablehook = _report_unraisable
        _prepare_streams()
        if next((argument for argument in sys.argv[1:] if not argument.startswith("-")), "") not in SERVING_COMMANDS:
            _raise_oom_score()
        status = run(sys.argv[1:])
        signal.signal(signal.SIGINT, _exit_now)
    except KeyboardInterrupt:
        status = _INTERRUPTED
    if status == _INTERRUPTED:
        _exit_now()  # a normal exit would wait for threads that may still be running
    sys.exit(status)


def run(arguments: list[str]) -> int:
    """Run one command; returns the exit status."""
    from api.commands.group import run_command

    return run_command(arguments)


def _prepare_streams() -> None:
    """Open /dev/null as each standard stream that the caller has closed, and let standard output print any file name.

    A file that the command opens would otherwise get the closed stream's descriptor, and receive its output.
    """
    for descriptor, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null != descriptor:
                os.dup2(null, descriptor)
                os.close(null)
            os.set_inheritable(descriptor, True)
            setattr(sys, name, open(descriptor, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    sys.stdout.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]


def _raise_oom_score() -> None:
    """Make the kernel kill this command, not the gateway in the same container, if memory runs out."""
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write("1000")
    except OSError:
        pass


def _exit_now(*_: object) -> None:
    os._exit(_INTERRUPTED)


def _report_unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    """Exit if Ctrl-C arrived where Python cannot raise, such as in a destructor."""
    if isinstance(unraisable.exc_value, KeyboardInterrupt):
        _exit_now()
    sys.__unraisablehook__(unraisable)
