"""A registry with two versions of a model, and a service that serves the first."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from api.services.opening import open_model
from api.settings import Settings
from model.imaging.input_spec import InputSpec
from model.registry.files import FileRegistry
from model.serving.overload_policy import QueueLimits
from model.serving.service import PredictionService
from monitoring.chains.signing import new_private_key
from tests.model.backends.tiny_onnx import write_tiny_artefact


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
