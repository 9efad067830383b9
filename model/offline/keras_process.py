"""Run TensorFlow and Matplotlib, which the gateway's environment lacks, in short-lived child processes."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from model.errors import KerasMissing, KerasProcessFailed, ModelError

# The variables that Python, TensorFlow and a download of weights may need.
_PASSED_VARIABLES = frozenset(
    {"PATH", "HOME", "LANG", "TMPDIR", "TERM", "COLUMNS", "LD_LIBRARY_PATH", "GLIBC_TUNABLES", "SSL_CERT_FILE"}
    | {"HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"}
)
_PASSED_PREFIXES = ("LC_", "TF_", "KERAS_", "CUDA_", "NVIDIA_", "XLA_", "OMP_")

_INTERRUPTED = 130  # the exit status that shells report for SIGINT
PROJECT_ROOT = Path(__file__).resolve().parents[2]


def run_in_keras(
    module: str, options: Mapping[str, Any], python: Path | None = None, *, stdout: int | None = None
) -> None:
    """Run `python -m MODULE OPTIONS_AS_JSON` and wait for it; the child shares this process's stdout and stderr.

    With `stdout`, a file descriptor, the child's standard output goes there.
    `python` is the interpreter; see `choose_interpreter` for the default. Raises KerasMissing, KerasProcessFailed.
    """
    interpreter = find_interpreter(python)
    command: list[str | Path] = [interpreter, "-m", module, json.dumps(dict(options))]
    status = subprocess.run(command, check=False, env=_environment_without_secrets(), stdout=stdout).returncode
    if status < 0:
        raise KerasProcessFailed(f"{module} was ended by signal {-status}. Signal 9 usually means too little memory.")
    if status > 0:
        raise KerasProcessFailed(f"{module} failed with exit status {status}. Its error message is above.")


def find_interpreter(python: Path | None = None) -> Path:
    """Return the interpreter that `run_in_keras` uses. Raises KerasMissing."""
    return choose_interpreter(python, PROJECT_ROOT, importlib.util.find_spec("tensorflow") is not None)


def choose_interpreter(configured: Path | None, root: Path, has_tensorflow: bool) -> Path:
    """Return `configured`, or this interpreter if it has TensorFlow, or the one in `root`/.venv-keras.

    Raises KerasMissing if .venv-keras does not exist.
    """
    if configured is not None:
        return configured
    if has_tensorflow:
        return Path(sys.executable)
    fallback = root / ".venv-keras" / "bin" / "python"
    if not fallback.exists():
        raise KerasMissing("Keras is not installed. Run `make keras`, or set MODEL__KERAS_PYTHON to an interpreter.")
    return fallback


def run_entry_point(action: Callable[[], None]) -> int:
    """Run the work of the child process. Prints an expected error as one line, and returns the exit status."""
    try:
        action()
    except ModelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        os._exit(_INTERRUPTED)  # TensorFlow's threads would delay an ordinary exit
    return 0


@contextmanager
def silence_stderr() -> Iterator[None]:
    """Discard the stderr output of native code, for importing TensorFlow in the block.

    TensorFlow reports missing GPUs from C++ before its log level can be set, so the file descriptor must be redirected.
    Exceptions pass through.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    saved = os.dup(2)
    try:
        with open(os.devnull, "wb") as devnull:
            os.dup2(devnull.fileno(), 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def _environment_without_secrets() -> dict[str, str]:
    """Return the environment for a child that may open untrusted files: Keras' loader has had code-execution bugs."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in _PASSED_VARIABLES or name.startswith(_PASSED_PREFIXES)
    }
