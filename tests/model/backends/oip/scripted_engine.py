"""An engine on loopback whose failures a test scripts, because a real engine does not fail on demand."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

from model.backends.base import Backend
from model.backends.oip.address import parse_address
from model.backends.oip.backend import EngineOptions, OipBackend
from model.backends.oip.connections import PLAIN, Transport
from model.backends.oip.wire import HEADER_LENGTH
from model.explanation.head import Head
from model.imaging.input_spec import InputSpec
from model.registry.artefact import Manifest
from tests.support.polling import PATIENCE_S

SIDES = [8, 8, 3]
CLASSES = ("red", "green", "blue")
SPEC = InputSpec(width=8, height=8, dtype="uint8")
MANIFEST = Manifest("tiny", "1.0", CLASSES, outputs={}, files={}, data={}, results={}, tools={}, input_spec=SPEC)
RED = np.zeros((1, *SIDES), np.uint8)
RED[..., 0] = 200


def describe_model(**changes: Any) -> dict[str, Any]:
    return {
        "name": "tiny",
        "versions": ["7"],
        "inputs": [{"name": "image", "datatype": "UINT8", "shape": [-1, *SIDES]}],
        "outputs": [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 3]}],
        **changes,
    }


@dataclass
class Script:
    """How the engine responds, and what it has received.

    `status` is the status of predictions. While `silent` is locked, predictions get no response. With `closes`, each
    response closes its connection. After `fails_after` predictions, the engine hangs up. `paths`, `headers` and
    `connections` record all requests; `requests` records the documents of predictions.
    """

    server: dict[str, Any] = field(default_factory=lambda: {"name": "triton", "extensions": ["binary_tensor_data"]})
    model: dict[str, Any] = field(default_factory=describe_model)
    status: int = 200
    body: bytes | None = None
    is_ready: bool = True
    hangs_up: bool = False
    closes: bool = False
    fails_after: float = math.inf
    silent: threading.Lock = field(default_factory=threading.Lock)
    paths: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    connections: set[int] = field(default_factory=set)


class ScriptedEngine(ThreadingHTTPServer):
    """Returns the mean colours of each image as probabilities, unless `script` says otherwise."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128  # beyond Python's default of 5, clients retry connecting only after a second

    def __init__(self, script: Script | None = None, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.script = script or Script()

    def handle_error(self, *_: Any) -> None:
        """Write nothing when a gateway hangs up."""

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ScriptedEngine

    def do_GET(self) -> None:
        script = self._record()
        if self.path.endswith("/ready"):
            self._respond(200 if script.is_ready else 400, b"")
        else:
            self._respond(200, json.dumps(script.server if self.path == "/v2" else script.model).encode())

    def do_POST(self) -> None:
        script = self._record()
        length = int(self.headers[HEADER_LENGTH] or self.headers["Content-Length"])
        document = json.loads(self.rfile.read(length))
        script.requests.append(document)
        tensor = document["inputs"][0]
        rest = self.rfile.read(int(self.headers["Content-Length"]) - length)
        values = np.frombuffer(rest, np.uint8) if rest else np.array(tensor["data"], np.float32)
        with script.silent:
            pass
        if script.hangs_up or len(script.requests) > script.fails_after:
            self.close_connection = True
        elif script.status != 200 or script.body is not None:
            self._respond(script.status, b'{"error": "no"}' if script.body is None else script.body)
        else:
            self._predict(values.reshape(tensor["shape"]).astype(np.float32))

    def _predict(self, values: Any) -> None:
        means = values.mean(axis=(1, 2))
        probabilities = (means / means.sum(axis=1, keepdims=True)).astype(np.float32)
        output: dict[str, Any] = {"name": "probabilities", "datatype": "FP32", "shape": list(probabilities.shape)}
        output["data"] = probabilities.ravel().tolist()
        self._respond(200, json.dumps({"model_name": "tiny", "model_version": "7", "outputs": [output]}).encode())

    def _record(self) -> Script:
        script = self.server.script
        script.paths.append(self.path)
        script.headers.append(dict(self.headers))
        script.connections.add(self.client_address[1])
        return script

    def _respond(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if self.server.script.closes:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Write nothing."""


@contextmanager
def connected(
    *engines: ScriptedEngine,
    path: str = "tiny",
    transport: Transport = PLAIN,
    in_flight: int = 16,
    head: Head | None = None,
    local: Backend | None = None,
    longest_s: float = 2 * PATIENCE_S,
    hosts: Sequence[str] = (),
) -> Iterator[OipBackend]:
    """A back end connected to running engines and to those at `hosts`."""
    every = ",".join((*(engine.endpoint for engine in engines), *hosts))
    options = EngineOptions(Path(), transport, in_flight, local, longest_s)
    backend = OipBackend(parse_address(f"oip+http://{every}/{path}"), MANIFEST, head, options)
    try:
        backend.connect(wait_s=0)
        yield backend
    finally:
        backend.close()
