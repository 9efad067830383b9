"""The model on a real Ray Serve, compared with the gateway's own back end."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import httpx
import numpy as np
import pytest
from tritonclient.http import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

from model.backends.base import Backend
from model.backends.open import open_backend
from model.imaging.decode import decode_image
from tests.support.certificates import public_trust
from tests.support.paths import ROOT
from tests.support.polling import wait_until
from tests.support.ports import free_port
from tests.support.requirements import missing

ENVIRONMENT = ROOT / ".venv-engines" / "ray"
ARTEFACT = ROOT / "artifacts" / "efficientnetb0-v1.1"
MODEL = "efficientnetb0"
START_S = 300
STOP_S = 60


@pytest.fixture(scope="module")
def engine() -> Iterator[str]:
    """The engine's host and port. On a busy machine, Ray may give up after 15 s; then it is started again."""
    if not (ENVIRONMENT / ".server").exists():
        missing("Ray Serve is not installed: make engines")
    address = f"127.0.0.1:{free_port()}"
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:
        processes = [start(address, folder)]

        def is_ready() -> bool:
            if processes[-1].poll() is not None:
                processes.append(start(address, folder))
            with suppress(httpx.TransportError):
                return httpx.get(f"http://{address}/v2/models/{MODEL}/ready", verify=public_trust()).is_success
            return False

        try:
            wait_until(is_ready, START_S, message=(Path(folder) / "log").read_text)
            yield address
        finally:
            stop(processes[-1])


def start(address: str, folder: str) -> subprocess.Popen[bytes]:
    arguments = ["tests.deploy.ray.run_engine", str(ARTEFACT), address.split(":")[1], folder]
    command = [str(ENVIRONMENT / "bin" / "python"), "-m", *arguments]
    environment = {"PATH": os.environ["PATH"], "HOME": folder, "RAY_USAGE_STATS_ENABLED": "0"}
    with (Path(folder) / "log").open("ab") as log:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Terminate the driver, which stops the processes that it has started, and kill any that remain."""
    process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def local() -> Iterator[Backend]:
    with closing(open_backend(f"onnx://{ARTEFACT}")) as backend:
        yield backend


def test_it_computes_what_the_gateway_computes(engine: str, local: Backend) -> None:
    """Labels equal those of the local back end, and probabilities to 1e-4, for a batch and for a single image."""
    files, spec = (path.read_bytes() for path in (ROOT / "samples").glob("*.jpg")), local.info.input_spec
    pixels = np.stack([decode_image(file, spec).pixels for file in files])
    with closing(InferenceServerClient(engine)) as client:
        assert client.get_model_metadata(MODEL)["parameters"]["digest"] == local.info.digest
        for batch in (pixels, pixels[:1]):
            tensor = InferInput("image", batch.shape, "UINT8")
            tensor.set_data_from_numpy(batch)
            result = client.infer(MODEL, [tensor])
            expected, pooled = local.predict_pooled(batch)
            probabilities = result.as_numpy("probabilities")
            assert probabilities.argmax(axis=1).tolist() == expected.argmax(axis=1).tolist()
            assert np.abs(probabilities - expected).max() < 1e-4
            assert np.abs(result.as_numpy("pooled") - pooled).max() < 1e-3


def test_bad_requests_are_rejected(engine: str) -> None:
    """A wrong shape is rejected with 400, and an unknown model with 404."""
    with closing(InferenceServerClient(engine)) as client:
        tensor = InferInput("image", [1, 2, 2, 3], "UINT8")
        tensor.set_data_from_numpy(np.zeros((1, 2, 2, 3), np.uint8))
        for model, status in ((MODEL, "400"), ("other", "404")):
            with pytest.raises(InferenceServerException) as raised:
                client.infer(model, [tensor])
            assert raised.value.status() == status
