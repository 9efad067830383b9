"""Following an alias within the gateway's memory budget."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from api.services.aliases.following import follow_alias
from api.services.opening import open_model
from api.settings import Settings
from model.imaging.input_spec import InputSpec
from model.registry.files import FileRegistry
from model.serving.alias_follower import AliasFollower
from model.serving.memory_budget import MemoryBudget
from model.serving.overload_policy import QueueLimits
from model.serving.service import PredictionService
from monitoring.metrics import Metrics
from tests.model.backends.tiny_onnx import write_tiny_artefact

MEBIBYTE = 1 << 20
DECISION: Any = {"who": "cli:olga", "why": "a test"}
Following = Callable[[int], AbstractAsyncContextManager[tuple[AliasFollower, PredictionService]]]


@pytest.fixture
def registry(tmp_path: Path) -> FileRegistry:
    """The versions 1.0, in production, and 1.1 of a model that can be loaded."""
    registry, source = FileRegistry(tmp_path / "registry"), tmp_path / "tiny"
    source.mkdir()
    write_tiny_artefact(source, InputSpec(16, 16))
    registry.add(source)
    manifest = source / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "version": "1.1"}))
    registry.add(source)
    registry.move_aliases("tiny", {"production": "1.0"}, **DECISION)
    return registry


@pytest.fixture
def shown() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def following(registry: FileRegistry, shown: CollectorRegistry, tmp_path: Path) -> Following:
    """Serve the production version, with `memory` bytes for images and model loads."""
    assert registry.list_models() == ["tiny"]
    model = {"registry": f"file://{tmp_path}/registry", "url": "registry://tiny@production", "workers": 1}
    settings = Settings(model={**model, "prepare": False})

    @asynccontextmanager
    async def following(memory: int) -> AsyncIterator[tuple[AliasFollower, PredictionService]]:
        service = PredictionService(
            open_model(settings), workers=1, limits=QueueLimits(2, 2.0), on_stage=lambda *_: None
        )
        try:
            async with follow_alias(settings, service, MemoryBudget(memory), Metrics(shown)) as follower:
                assert follower is not None
                yield follower, service
        finally:
            service.close()
            service.backend.close()

    return following


async def test_a_version_that_does_not_fit_in_memory_is_not_served(
    following: Following, registry: FileRegistry, shown: CollectorRegistry
) -> None:
    """If the new version does not fit in memory, the old one stays in service, and the failure is counted."""
    async with following(8 * MEBIBYTE) as (follower, service):
        registry.move_aliases("tiny", {"production": "1.1"}, **DECISION)
        await follower.catch_up()
        assert (service.model.version, follower.problem) == ("1.0", "model_too_large")
        assert shown.get_sample_value("atalaya_model_loads_total", {"outcome": "failed"}) == 1
        registry.move_aliases("tiny", {"production": "1.0"}, **DECISION)
        await follower.catch_up()
        assert follower.problem is None
