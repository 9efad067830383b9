"""Real inference engines on loopback that serve the shipped network: Triton, MLServer and KServe's model server."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.support.certificates import public_trust
from tests.support.paths import ROOT
from tests.support.polling import PATIENCE_S, wait_until
from tests.support.ports import free_port

ENGINES = ("triton", "mlserver", "kserve")
GRAPH = ROOT / "artifacts" / "efficientnetb0-v1.1" / "model.onnx"
MODEL = "landuse"


@dataclass
class RunningEngine:
    """An engine that serves MODEL. `folder` gets its log and temporary files."""

    name: str
    folder: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def model_url(self) -> str:
        return f"http://{self.endpoint}/v2/models/{MODEL}"

    @property
    def oip_url(self) -> str:
        """The MODEL__URL of a gateway in front of it."""
        return f"oip+http://{self.endpoint}/{MODEL}"

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Start it without waiting until it is ready. Raises LookupError if it is not installed."""
        python = ROOT / ".venv-engines" / self.name / "bin" / "python"
        if not (ROOT / ".venv-engines" / self.name / ".server").exists():
            raise LookupError(f"{self.name} is not installed: make engines")
        module = f"tests.support.servers.engines.run_{self.name}"
        ports = [str(self.port), str(free_port()), str(free_port())]
        # Without proxies, telemetry and the user's home: the engine gets only what it needs to start.
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "TMPDIR": str(self.folder)}
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(python), "-m", module, *ports, str(GRAPH)],
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def is_ready(self) -> bool:
        if not self.is_running:
            raise AssertionError(f"{self.name} has ended: {(self.folder / f'{self.name}.log').read_text()[-2000:]}")
        try:
            return httpx.get(f"{self.model_url}/ready", verify=public_trust()).is_success
        except httpx.TransportError:
            return False

    def kill(self) -> None:
        """End the engine and the processes that it has started, with SIGKILL."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(PATIENCE_S)


@contextmanager
def running_engines(folder: Path, *names: str) -> Iterator[list[RunningEngine]]:
    """Start one engine for each name, all at the same time. Skips the test if one is not installed."""
    engines = []
    for number, name in enumerate(names):
        (folder / str(number)).mkdir(parents=True, exist_ok=True)
        engines.append(RunningEngine(name, folder / str(number)))
    try:
        for engine in engines:
            engine.start()
        for engine in engines:
            wait_until(engine.is_ready, message=f"{engine.name} is not ready")
        yield engines
    except LookupError as error:
        from tests.support.requirements import missing  # imports pytest, which benchmarks do not have

        missing(str(error))
    finally:
        for engine in engines:
            engine.kill()
