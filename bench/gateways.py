"""Start a gateway as it is deployed, for measurements."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.load import build_request
from bench.rounds import Measure, measure_server
from tests.support.gateway import Gateway, make_gateway
from tests.support.paths import FOREST, MODEL_URL

UNLIMITED = "10000000/minute"


@contextmanager
def measured_gateway(model_url: str = MODEL_URL, **settings: str) -> Iterator[Gateway]:
    """Start a gateway with a rate limit that no load reaches, and stop it at the end. Raises RuntimeError.

    It serves the copy of an ONNX model that is prepared for this machine, as a gateway does once it has built one.
    """
    with tempfile.TemporaryDirectory(prefix="atalaya-gateway-") as folder:
        changes = {"MODEL__URL": model_url, "MODEL__PREPARE": "true", "LIMITS__PREDICT": UNLIMITED, **settings}
        gateway = make_gateway(Path(folder), **changes)
        if model_url.startswith("onnx://"):
            prepared = gateway.run("models", "prepare")
            if prepared.returncode:
                raise RuntimeError(prepared.stderr)
        gateway.start()
        try:
            yield gateway
        finally:
            if gateway.is_running:
                gateway.stop()


def measure_gateway(gateway: Gateway) -> Measure:
    """Return a measure of the gateway, which sends one JPEG image as the user `ana`."""
    return measure_server(gateway.port, lambda: build_request(gateway.token(), FOREST))
