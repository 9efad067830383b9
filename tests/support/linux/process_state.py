"""The process state that tests share. A test that leaves it changed would make later tests depend on the order."""

from __future__ import annotations

import gc
import logging
import os
import resource
import signal
import sys
import threading
from collections.abc import Mapping
from typing import Any

import structlog

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGPIPE, signal.SIGUSR1)
# pytest sets the first. The second is set when Keras is loaded, by the first test that needs it.
_VARIABLES_OF_LIBRARIES = {"PYTEST_CURRENT_TEST", "TF_CPP_MIN_LOG_LEVEL"}
_LIMITS = (resource.RLIMIT_NOFILE, resource.RLIMIT_AS, resource.RLIMIT_FSIZE, resource.RLIMIT_DATA)


def read_process_state() -> dict[str, Any]:
    """Return the state of this process by the name of each part, as values that can be compared."""
    root = logging.getLogger()
    return {
        **{f"environment: {name}": os.environ[name] for name in os.environ.keys() - _VARIABLES_OF_LIBRARIES},
        "working directory": os.getcwd(),
        "umask": _read_umask(),
        "signal handlers": {number.name: signal.getsignal(number) for number in _SIGNALS},
        "resource limits": [resource.getrlimit(limit) for limit in _LIMITS],
        "garbage collection": (gc.isenabled(), gc.get_threshold()),
        "switch interval": sys.getswitchinterval(),
        "exception hooks": (sys.excepthook, threading.excepthook, sys.unraisablehook),
        "import path": list(sys.path),
        "logging": (root.level, root.handlers[:], logging.root.manager.disable, logging.getLogger("atalaya").level),
        "structlog": structlog.get_config(),
    }


def list_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return the names of the parts that differ, without their values, because a variable may contain a secret."""
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def _read_umask() -> int:
    """Return the mask, which os.umask returns only when it sets one."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
