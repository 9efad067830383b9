"""Measure what the gateway's client adds to calling an inference engine directly: python -m bench.parts.remote.

Both send the same image to the same Triton in turn: the client of `oip+http://`, which chooses an endpoint, checks
responses and reports events, and a bare connection, which sends bytes that were encoded beforehand.

Exit status 0 when the client adds at most 1.5 ms in the median; otherwise 1.
"""

from __future__ import annotations

import http.client
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from model.backends.oip.backend import EngineOptions
from model.backends.oip.wire import HEADER_LENGTH, encode_request
from model.backends.open import open_backend
from model.imaging.decode import decode_image
from model.imaging.input_spec import DEFAULT_INPUT
from tests.support.paths import ARTEFACT, FOREST
from tests.support.servers.engines.running import MODEL, RunningEngine, running_engines

ROUNDS = 300
WARM_UP_ROUNDS = 20
MAX_ADDED_MS = 1.5


def make_direct_call(engine: RunningEngine, pixels: np.ndarray) -> Callable[[], object]:
    connection = http.client.HTTPConnection("127.0.0.1", engine.port)
    body, length = encode_request("image", pixels, ["probabilities", "pooled"], binary=True)
    headers = {HEADER_LENGTH: str(length)}

    def call() -> bytes:
        connection.request("POST", f"/v2/models/{MODEL}/infer", body, headers)
        return connection.getresponse().read()

    return call


def measure(*calls: Callable[[], object]) -> list[float]:
    """Make the calls in turn; return the median milliseconds of each."""
    durations: list[list[float]] = [[] for _ in calls]
    for number in range(WARM_UP_ROUNDS + ROUNDS):
        for call, seconds in zip(calls, durations, strict=True):
            started = time.perf_counter()
            call()
            if number >= WARM_UP_ROUNDS:
                seconds.append(time.perf_counter() - started)
    return [1000 * statistics.median(seconds) for seconds in durations]


def main() -> int:
    pixels = decode_image(FOREST.read_bytes(), DEFAULT_INPUT).pixels[np.newaxis]
    with tempfile.TemporaryDirectory() as folder, running_engines(Path(folder), "triton") as (engine,):
        backend = open_backend(engine.oip_url, engines=EngineOptions(ARTEFACT))
        direct_ms, client_ms = measure(make_direct_call(engine, pixels), lambda: backend.predict_pooled(pixels))
        backend.close()
    added_ms = client_ms - direct_ms
    print(f"calling Triton directly    {direct_ms:6.2f} ms (median of {ROUNDS})")
    print(f"through oip+http://        {client_ms:6.2f} ms, {added_ms:+.2f} ms")
    if added_ms > MAX_ADDED_MS:
        print(f"failed: the client adds more than {MAX_ADDED_MS} ms", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
