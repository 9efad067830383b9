"""Follows the alias in MODEL__URL: loads the version it names, reserves memory for it, and reports each switch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from api.server.exit_status import describe_error
from api.services.background import run_in_background
from api.services.capacity import count_inference_threads, estimate_model_bytes
from api.services.opening import open_url, release
from api.services.prepared_copies.finding import report_origin
from api.services.registry import find_model_folder, open_registry
from api.settings import Settings
from model.backends.base import Backend, ModelInfo
from model.errors import ImageTooLargeHere, ModelError, ModelTooLarge
from model.registry.artefact import read_manifest
from model.registry.reference import ModelReference
from model.registry.watch import AliasWatch
from model.serving.alias_follower import AliasFollower
from model.serving.memory_budget import MemoryBudget, Reservation
from model.serving.service import PredictionService
from monitoring.metrics import Metrics

_CALLER = "model"  # in the memory budget; no principal has this name
_POLICY = "the version in service stays"
_OUTCOMES = ("switched", "failed")

log = structlog.get_logger("atalaya.model")


@asynccontextmanager
async def follow_alias(
    settings: Settings, predictions: PredictionService, memory: MemoryBudget, metrics: Metrics
) -> AsyncIterator[AliasFollower | None]:
    """Keep `predictions` on the version that the alias in MODEL__URL names; do nothing if MODEL__URL has no alias."""
    reference = settings.model.reference
    if reference is None:
        yield None
        return
    async with memory.reserve(0, _CALLER) as reservation:
        versions = await asyncio.to_thread(_RegistryVersions, settings, reference, predictions, reservation)
        follower = AliasFollower(predictions, versions, _Reports(metrics))
        async with run_in_background(follower.follow()):
            yield follower


class _RegistryVersions:
    """The versions of one model in the registry.

    `reservation` holds the memory of a version being loaded, plus the amount by which the version in service exceeds
    the one loaded at start-up, whose memory was never part of the budget.
    """

    def __init__(
        self, settings: Settings, reference: ModelReference, predictions: PredictionService, reservation: Reservation
    ) -> None:
        self._settings = settings
        self._predictions = predictions
        self._reservation = reservation
        self._watch = AliasWatch(open_registry(settings), reference)
        self._first_bytes = self._served_bytes = estimate_version_bytes(settings, predictions.model.version)

    def find(self) -> str:
        return self._watch.find_version()

    def open(self, version: str) -> Backend:
        return open_url(self._settings, f"onnx://{find_model_folder(self._settings, version)}")

    @asynccontextmanager
    async def reserve_memory(self, version: str) -> AsyncIterator[None]:
        needed = await asyncio.to_thread(estimate_version_bytes, self._settings, version)
        try:
            await self._reservation.resize(self._growth + needed, while_waiting=self._growth)
        except ImageTooLargeHere:
            raise ModelTooLarge(
                f"Loading version {version} takes about {needed >> 20} MB on top of the version in service, more than "
                "the memory for images. Give the gateway more memory or fewer MODEL__WORKERS, or restart it."
            ) from None
        try:
            yield
            if self._predictions.model.version == version:
                self._served_bytes = needed
        finally:
            await self._reservation.resize(self._growth, while_waiting=self._growth)

    def release(self, backend: Backend) -> None:
        release(backend)

    @property
    def _growth(self) -> int:
        return max(0, self._served_bytes - self._first_bytes)


def estimate_version_bytes(settings: Settings, version: str, threads: int | None = None) -> int:
    """Return the memory that a version of the model takes, by default with the configured inference threads.

    Raises ArtefactError, RegistryError.
    """
    from model.backends.onnx import MODEL_FILE  # imports the runtime, which would delay the start

    manifest = read_manifest(find_model_folder(settings, version))
    entry = manifest.files.get(MODEL_FILE)  # without it, opening the version fails and says why
    return estimate_model_bytes(entry.bytes if entry else 0, threads or count_inference_threads(settings))


class _Reports:
    """Reports the outcome of each switch in the log and in the metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        for outcome in _OUTCOMES:
            metrics.model_loads.labels(outcome)

    def on_switch(self, previous: ModelInfo, current: Backend) -> None:
        info = current.info
        for served, value in ((previous, 0), (info, 1)):
            self._metrics.model_info.labels(served.name, served.version, served.digest, served.backend).set(value)
        self._metrics.model_loads.labels("switched").inc()
        log.info("model_switched", model=info.full_name, previous=previous.full_name, digest=info.digest)
        report_origin(current, self._metrics)

    def on_failure(self, version: str, error: Exception) -> None:
        self._metrics.model_loads.labels("failed").inc()
        code, (reason, *_) = describe_error(error)
        log.error("model_not_switched", version=version, code=code, reason=reason, policy=_POLICY)

    def on_registry_error(self, error: ModelError) -> None:
        log.warning("registry_unreadable", code=error.code, reason=str(error), policy=_POLICY)

    def on_check_failure(self, error: Exception) -> None:
        log.error("alias_not_checked", policy=f"{_POLICY}; the next checks try again", exc_info=error)
