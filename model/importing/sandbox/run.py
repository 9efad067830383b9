"""Start a confined process, watch it, and kill it if it exceeds its limits."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from glob import glob
from pathlib import Path

from msgspec import to_builtins

from model.errors import ImportLimitExceeded
from model.importing.sandbox import Confinement, Limits
from model.importing.sandbox.outcome import raise_for_status

_PACKAGE = Path(__file__).resolve().parents[2]  # model/
_POLL_S = 0.2
_MAX_LOG_BYTES = 16 << 10
# Variables of the dynamic linker that the interpreter may need to start. No others are passed on.
_PASSED_VARIABLES = ("LD_LIBRARY_PATH", "GLIBC_TUNABLES")


def run_confined(  # noqa: PLR0913  (each restriction of the process is a keyword)
    module: str,
    argument: str,
    *,
    python: Path,
    readable: Sequence[Path],
    writable: Path,
    limits: Limits,
    code: Sequence[Path] = (_PACKAGE,),
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Run `python -m MODULE ARGUMENT` in the sandbox, in the folder `writable`.

    It can read the interpreter's installation, the system's libraries, `readable` and `code`. Besides the installed
    packages, it can import only those in `code`. Raises ImportFailed, ImportLimitExceeded, SandboxUnavailable.
    """
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as log:
        packages = Path(folder)
        for path in code:
            (packages / path.name).symlink_to(path)
        paths = tuple(str(path.resolve()) for path in (*readable, *code, packages))
        confinement = Confinement(module, argument, limits, paths, str(writable.resolve()))
        process = subprocess.Popen(
            [python, "-B", "-P", "-m", "model.importing.sandbox", json.dumps(to_builtins(confinement))],
            cwd=writable,
            env=_build_environment(packages, writable),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            _watch(process, writable, limits, clock)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        raise_for_status(process.returncode, _read_end(log.fileno()))


def _watch(process: subprocess.Popen[bytes], folder: Path, limits: Limits, clock: Callable[[], float]) -> None:
    deadline = clock() + limits.wall_seconds
    while True:
        try:
            process.wait(_POLL_S)
        except subprocess.TimeoutExpired:
            if clock() > deadline:
                raise ImportLimitExceeded(
                    f"The import did not end within {limits.wall_seconds} s. Import a smaller model, or fewer images."
                ) from None
        if _measure_folder(folder) + _measure_unlinked(process.pid) > limits.folder_bytes:
            raise ImportLimitExceeded(
                f"The import wrote more than {limits.folder_bytes >> 20} MiB. Import a smaller model."
            )
        if process.returncode is not None:
            return


def _measure_folder(folder: Path) -> int:
    """Return the bytes of the files below a folder, at least 4096 for each. Files may disappear in the meantime."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += max(os.lstat(os.path.join(root, name)).st_size, 4096)
            except FileNotFoundError:
                continue
    return total


def _measure_unlinked(pid: int) -> int:
    """Return the bytes of deleted files that the process still has open.

    Each thread may have its own descriptors.
    """
    sizes = {}
    for descriptor in glob(f"/proc/{pid}/task/*/fd/*"):
        try:
            status = os.stat(descriptor)
        except OSError:  # closed in the meantime
            continue
        if status.st_nlink == 0:
            sizes[status.st_dev, status.st_ino] = status.st_size
    return sum(sizes.values())


def _build_environment(packages: Path, writable: Path) -> dict[str, str]:
    passed = {name: os.environ[name] for name in _PASSED_VARIABLES if name in os.environ}
    return passed | {
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "HOME": str(writable),
        "TMPDIR": str(writable),
        "PYTHONPATH": str(packages),
        "PYTHONSAFEPATH": "1",
        "KERAS_BACKEND": "tensorflow",
        "CUDA_VISIBLE_DEVICES": "-1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


def _read_end(descriptor: int) -> str:
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, _MAX_LOG_BYTES, max(0, size - _MAX_LOG_BYTES)).decode("utf-8", "replace")
