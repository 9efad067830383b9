"""How a process ends: its exit status, and one line on standard error for an expected error."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable

from api.errors import ApiError, SettingsError
from auth.errors import AuthError
from model.errors import ModelError
from monitoring.errors import MonitoringError
from storage.errors import DatabaseUnavailable, StorageError

# What users, settings and the environment can cause. Anything else is a bug, and prints a traceback.
EXPECTED_ERRORS = (ApiError, AuthError, ModelError, MonitoringError, StorageError, OSError)


def print_error(reason: Exception | str, status: int = 1) -> int:
    """Print the reason on standard error, one line for each problem; returns `status`."""
    if isinstance(reason, OSError):
        reason = f"{reason.strerror or reason}{f': {reason.filename}' if reason.filename else ''}"
    for problem in reason.problems if isinstance(reason, SettingsError) else [_find_cause(reason)]:
        print(f"error: {' '.join(problem.split())}", file=sys.stderr)
    return status


def _find_cause(reason: BaseException | str) -> str:
    """Return the sentence for the operator: that of the database's failure, if one has caused the error."""
    cause = reason
    while isinstance(cause, BaseException):
        if isinstance(cause, DatabaseUnavailable) and cause.reason:
            return cause.reason
        cause = cause.__cause__ or ""
    return str(reason)


def run_to_exit_status(action: Callable[[], int]) -> int:
    """Run the whole work of a process; returns its exit status, prints every error and raises none."""
    try:
        return action()
    except EXPECTED_ERRORS as error:
        return print_error(error)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    except KeyboardInterrupt:
        return 130
    except BaseException:
        traceback.print_exc()
        return 1
