"""Where TensorFlow runs: in short-lived child processes, so that the gateway's environment never holds it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from model.errors import KerasMissing, KerasProcessFailed

# What Python, TensorFlow and a download of weights may need of the environment.
_PASSED = frozenset(
    {"PATH", "HOME", "LANG", "TMPDIR", "TERM", "COLUMNS", "LD_LIBRARY_PATH", "GLIBC_TUNABLES", "SSL_CERT_FILE"}
    | {"HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"}
)
_PASSED_KINDS = ("LC_", "TF_", "KERAS_", "CUDA_", "NVIDIA_", "XLA_", "OMP_")

PROJECT_ROOT = Path(__file__).resolve().parents[2]


def run_in_keras(module: str, options: Mapping[str, Any], python: Path | None = None) -> None:
    """Run `python -m MODULE JSON` to its end; the child writes to this process's stdout and stderr.

    Raises KerasMissing, KerasProcessFailed.
    """
    interpreter = choose_interpreter(python, PROJECT_ROOT, importlib.util.find_spec("tensorflow") is not None)
    command: list[str | Path] = [interpreter, "-m", module, json.dumps(dict(options))]
    status = subprocess.run(command, check=False, env=_harmless_environment()).returncode
    if status < 0:
        raise KerasProcessFailed(f"{module} was ended by signal {-status}. If that is 9, it may lack memory.")
    if status > 0:
        raise KerasProcessFailed(f"{module} failed with exit status {status}. Its own message above says why.")


def _harmless_environment() -> dict[str, str]:
    """No secret: the child may open a file from elsewhere, and Keras' loader has been talked into running code."""
    return {name: value for name, value in os.environ.items() if name in _PASSED or name.startswith(_PASSED_KINDS)}


def choose_interpreter(given: Path | None, root: Path, tensorflow_here: bool) -> Path:
    """Take `given`, else this interpreter if TensorFlow is here, else `root`/.venv-keras. Raises KerasMissing."""
    if given is not None:
        return given
    if tensorflow_here:
        return Path(sys.executable)
    beside = root / ".venv-keras" / "bin" / "python"
    if not beside.exists():
        raise KerasMissing("Keras is not installed. Run `make keras` to make .venv-keras, or name an interpreter.")
    return beside


@contextmanager
def start_quietly() -> Iterator[None]:
    """For the child: import TensorFlow in this context to be spared its notes about absent GPUs.

    It logs them before its log level can be set, and from C++, so that the file descriptor has to be turned away.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
