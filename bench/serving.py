"""A gateway of one's own to measure: `atalaya serve` in a folder that goes away."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from auth.tokens.jws import generate_signing_key
from monitoring.chains.signing import new_private_key

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "samples" / "yellowstone_forest.jpg"
ARTEFACT = f"onnx://{ROOT}/artifacts/efficientnetb0-v1.0"
ATALAYA = Path(sys.executable).with_name("atalaya")
_PASSWORD = "correct horse battery"  # noqa: S105  (of a user who lives for a minute)


@dataclass(frozen=True, slots=True)
class Served:
    """A gateway that answers. `ready_s` is how long its start took."""

    port: int
    pid: int
    token: str
    ready_s: float

    def resident_megabytes(self) -> float:
        """Resident memory of the process and its children at this moment."""
        return sum(map(_resident_bytes, [self.pid, *_children(self.pid)])) / 1e6


@contextmanager
def serving(**changes: str) -> Iterator[Served]:
    """Everything on, on SQLite, as `make run` serves, with changed settings."""
    folder = Path(tempfile.mkdtemp(prefix="atalaya-bench-"))
    port = free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "PORT": str(port),
        "LOG_LEVEL": "info",
        "DATABASE_URL": f"sqlite:///{folder}/bench.db",
        "AUTH__SIGNING_KEY": generate_signing_key("ES256"),
        "LEDGER__SIGNING_KEY": new_private_key(),
        "LEDGER__SPOOL_FOLDER": str(folder / "spool"),
        "MODEL__URL": ARTEFACT,
        "LIMITS__PREDICT": "1000000/minute",
        **changes,
    }
    adding = [str(ATALAYA), "users", "add", "ana", "--role", "client", "--password-stdin"]
    subprocess.run(adding, input=_PASSWORD.encode(), check=True, cwd=folder, env=environment, capture_output=True)
    began = time.perf_counter()
    with (folder / "gateway.log").open("wb") as log:
        process = subprocess.Popen([str(ATALAYA), "serve"], cwd=folder, env=environment, stdout=log, stderr=log)
    try:
        ready_s = _until_ready(port, process) - began
        yield Served(port, process.pid, _token(port), ready_s)
    finally:
        process.terminate()
        process.wait(20)
        shutil.rmtree(folder)


def free_port() -> int:
    """A port that nothing listens at now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _until_ready(port: int, process: subprocess.Popen[bytes]) -> float:
    while process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            if httpx.get(f"http://127.0.0.1:{port}/readyz").is_success:
                return time.perf_counter()
        time.sleep(0.005)
    raise SystemExit("error: the gateway did not start")


def _token(port: int) -> str:
    form = {"grant_type": "password", "username": "ana", "password": _PASSWORD}
    token: str = httpx.post(f"http://127.0.0.1:{port}/auth/token", data=form).json()["access_token"]
    return token


def _children(parent: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def _resident_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))
