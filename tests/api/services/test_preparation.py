"""Preparing the model in service for the machine."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from api.services.background import run_in_background
from api.services.opening import open_model, open_url
from api.services.preparation import keep_prepared
from api.services.registry import find_model_folder
from api.settings import Settings
from model.backends.base import Origin
from model.imaging.input_spec import InputSpec
from model.registry.files import FileRegistry
from model.serving.memory_budget import MemoryBudget
from model.serving.overload_policy import QueueLimits
from model.serving.service import PredictionService
from monitoring.chains.signing import new_private_key
from monitoring.metrics import Metrics
from tests.model.backends.tiny_onnx import write_tiny_artefact
from tests.support.polling import wait_until_async

MEMORY = 1 << 30


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A registry with version 1.0, in production, and 1.1 of a model, with different graphs; neither is prepared."""
    registry = FileRegistry(tmp_path / "registry")
    for version, size in (("1.0", 16), ("1.1", 32)):
        source = tmp_path / version
        source.mkdir()
        write_tiny_artefact(source, InputSpec(size, size))
        manifest = source / "manifest.json"
        manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "version": version}))
        registry.add(source)
    registry.move_aliases("tiny", {"production": "1.0"}, who="cli:olga", why="a test")
    model = {
        "registry": f"file://{tmp_path}/registry",
        "url": "registry://tiny@production",
        "prepared_folder": tmp_path / "prepared",
    }
    return Settings(model=model, ledger={"signing_key": new_private_key()})


@pytest.fixture
async def service(settings: Settings) -> AsyncIterator[PredictionService]:
    service = PredictionService(open_model(settings), workers=1, limits=QueueLimits(2, 2.0), on_stage=lambda *_: None)
    yield service
    service.close()
    service.backend.close()


async def test_each_version_in_service_is_prepared(settings: Settings, service: PredictionService) -> None:
    """The first version and the one that replaces it each get a prepared copy, which their next loads use."""
    shown = CollectorRegistry()

    async def wait_for_builds(count: int) -> None:
        done = {"outcome": "done"}
        await wait_until_async(lambda: shown.get_sample_value("atalaya_preparations_total", done) == count)

    def open_version(version: str) -> Origin | None:
        backend = open_url(settings, f"onnx://{find_model_folder(settings, version)}")
        try:
            return None if backend.weights is None else backend.weights.origin
        finally:
            backend.close()

    async with run_in_background(keep_prepared(settings, service, MemoryBudget(MEMORY), Metrics(shown))):
        await wait_for_builds(1)
        service.replace_backend(open_url(settings, f"onnx://{find_model_folder(settings, '1.1')}")).result().close()
        await wait_for_builds(2)
    assert [open_version(version) for version in ("1.0", "1.1")] == [Origin.PREPARED, Origin.PREPARED]


async def test_a_build_has_a_session_of_its_own(
    settings: Settings, service: PredictionService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in the terminal of the gateway does not interrupt a build, because its process leads a session."""
    program = tmp_path / "python"
    record = "(Path(__file__).parent / 'leads').write_text(str(os.getsid(0) == os.getpid()))"
    program.write_text(f"#!{sys.executable}\nimport os\nfrom pathlib import Path\n{record}\nraise SystemExit(1)\n")
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))
    shown = CollectorRegistry()
    async with run_in_background(keep_prepared(settings, service, MemoryBudget(MEMORY), Metrics(shown))):
        failed = {"outcome": "failed"}
        await wait_until_async(lambda: shown.get_sample_value("atalaya_preparations_total", failed) == 1)
    assert (tmp_path / "leads").read_text() == "True"
