"""Start the compared servers, each as its documentation recommends for this job, and stop all of their processes."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from bench.gateways import measured_gateway
from bench.load import build_request, encode_request
from tests.support.linux import processes
from tests.support.paths import ARTEFACT, FOREST, MODEL_URL, ROOT
from tests.support.polling import PATIENCE_S, wait_until
from tests.support.ports import free_port

ENVIRONMENTS = ROOT / ".venv-peers"
WORKERS = 2
_BOUNDARY = "atalaya-bench"


@dataclass(frozen=True, slots=True)
class Server:
    """A running server; `request` builds a prediction request."""

    pid: int
    port: int
    request: Callable[[], bytes]
    ready_s: float

    def megabytes(self) -> float:
        """Return the current memory of all of its processes. Shared memory is counted once."""
        return sum(map(processes.proportional_bytes, [self.pid, *processes.descendants(self.pid)])) / 1e6


@dataclass(frozen=True, slots=True)
class Peer:
    """How to start a peer with a program of its environment.

    `{port}` and `{workers}` in `command` are replaced. `ready` is the path of its readiness route.
    """

    name: str
    environment: Path
    command: tuple[str, ...]
    ready: str
    request: bytes


def _encode_form(image: bytes) -> bytes:
    head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="image.jpg"\r\n'
    return f"{head}Content-Type: image/jpeg\r\n\r\n".encode() + image + f"\r\n--{_BOUNDARY}--\r\n".encode()


def make_peers(image: bytes) -> tuple[Peer, ...]:
    """Return the peers: LitServe takes a file in a form, BentoML an image as the body, as their documentation shows."""
    form = {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"}
    return (
        Peer(
            "LitServe",
            ENVIRONMENTS / "litserve",
            ("python", "-m", "bench.peers.services.litserve_server", "{port}", "{workers}"),
            "/health",
            encode_request("/predict", _encode_form(image), form),
        ),
        Peer(
            "BentoML",
            ENVIRONMENTS / "bentoml",
            ("bentoml", "serve", "bench.peers.services.bentoml_service:LandUse", "--host=127.0.0.1", "--port={port}"),
            "/readyz",
            encode_request("/classify", image, {"Content-Type": "image/jpeg"}),
        ),
    )


@contextmanager
def running_peer(peer: Peer, model_folder: Path = ARTEFACT, workers: int = WORKERS) -> Iterator[Server]:
    """Start the peer, and stop it when the context ends. Raises AssertionError if it does not become ready."""
    port = free_port()
    program, *arguments = (part.format(port=port, workers=workers) for part in peer.command)
    with tempfile.TemporaryDirectory(prefix="atalaya-peer-") as folder:
        environment = {
            **{name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ},
            "HOME": folder,
            "BENTOML_HOME": folder,
            "BENTOML_DO_NOT_TRACK": "True",
            "ORT_DISABLE_TELEMETRY": "1",
            "PYTHONPATH": str(ROOT),
            "MODEL_FOLDER": str(model_folder),
            "WORKERS": str(workers),
        }
        with (Path(folder) / "log").open("wb") as log:
            began = time.perf_counter()
            process = subprocess.Popen(
                [peer.environment / "bin" / program, *arguments],
                cwd=folder,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            url = f"http://127.0.0.1:{port}{peer.ready}"
            wait_until(lambda: _is_ready(url), message=(Path(folder) / "log").read_text)
            yield Server(process.pid, port, lambda: peer.request, time.perf_counter() - began)
        finally:
            _stop(process)


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(url).is_success
    except httpx.TransportError:
        return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Shut the process down gracefully, then kill the processes of its session that remain."""
    process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(PATIENCE_S / 4)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextmanager
def running_atalaya(model_url: str = MODEL_URL) -> Iterator[Server]:
    """Start the gateway with all features on, in one process, and stop it when the context ends."""
    with measured_gateway(model_url) as gateway:
        yield Server(gateway.pid, gateway.port, lambda: build_request(gateway.token(), FOREST), gateway.ready_s)
