"""How a process ends: its exit status, and one line on standard error for each problem."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Sequence

from api.errors import EXIT_INTERRUPTED, ApiError, SettingsError
from auth.errors import AuthError
from model.errors import ModelError
from monitoring.errors import MonitoringError
from monitoring.redaction import redact
from storage.errors import DatabaseUnavailable, StorageError

DEBUG_OPTION = "--debug"
_BUG = "internal_error"
_CODED_ERRORS = (ApiError, AuthError, ModelError, MonitoringError, StorageError)


def describe_error(error: BaseException) -> tuple[str, Sequence[str]]:
    """Return the error's code, and a sentence for each problem. An error of an unknown class is a bug."""
    if isinstance(error, SettingsError):
        return error.code, error.problems
    if isinstance(error, _CODED_ERRORS):
        return error.code, [_find_cause(error)]
    if isinstance(error, OSError):
        return "system_error", [f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"]
    bug = f"{type(error).__name__}: {redact(str(error))}".rstrip(": ")
    return _BUG, [f"This is a bug ({bug})."]


def print_error(reason: BaseException | str, status: int = 1) -> int:
    """Print the reason on standard error, one line for each problem; returns `status`."""
    code, problems = ("", [reason]) if isinstance(reason, str) else describe_error(reason)
    hint = f" Run the command again with {DEBUG_OPTION} to see where." if code == _BUG else ""
    for problem in problems:
        print(f"error: {' '.join(problem.split())}{hint}", file=sys.stderr)
    return status


def _find_cause(reason: BaseException) -> str:
    """Return the message for the operator: that of a database failure, if one caused the error."""
    cause: BaseException | None = reason
    while cause is not None:
        if isinstance(cause, DatabaseUnavailable) and cause.reason:
            return cause.reason
        cause = cause.__cause__
    return str(reason)


def run_to_exit_status(action: Callable[[], int]) -> int:
    """Run `action`, the whole work of a forked process. Returns its exit status, prints every error and raises none."""
    try:
        return action()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BaseException as error:
        if DEBUG_OPTION in sys.argv:  # of the command whose process was forked
            traceback.print_exc()
        return print_error(error)
