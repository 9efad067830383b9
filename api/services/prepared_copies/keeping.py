"""Prepares each version of the model that is in service, and switches to its copy."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import structlog

from api.server.exit_status import describe_error
from api.services.aliases.following import estimate_version_bytes
from api.services.opening import open_url, release
from api.services.prepared_copies.building import build_within, reserve_when_free
from api.services.prepared_copies.finding import find_copies, report_origin
from api.services.registry import find_model_folder
from api.settings import Settings
from model.backends.base import Backend, ModelInfo, Origin
from model.backends.prepared.copies import PreparedCopies, encode_job
from model.errors import ArtefactError, ImageTooLargeHere
from model.registry.errors import RegistryError
from model.serving.memory_budget import MemoryBudget
from model.serving.service import PredictionService
from model.serving.workers import LoadingThread, wait_for_result
from monitoring.metrics import Metrics

_POLL_S = 1.0  # how often to check for another version in service

log = structlog.get_logger("atalaya.preparation")


async def keep_prepared(
    settings: Settings, predictions: PredictionService, memory: MemoryBudget, metrics: Metrics
) -> None:
    """Build the prepared copy of each version that is served without one, and switch to it, until cancelled.

    A trial compares its candidate with the back end in service, so the switch waits until the trial has ended.
    """
    copies = find_copies(settings)
    if copies is None:
        return
    seen: ModelInfo | None = None
    folder: Path | None = None  # of the version in service, if its copy is built, but not in use
    while True:
        served = predictions.backend
        if served.info is not seen:
            seen, folder = served.info, None
            if served.weights is not None and served.weights.origin is not Origin.PREPARED:
                folder = await _prepare_copy(settings, copies, served.info, memory, metrics)
        if folder is not None and predictions.trial is None:
            await _switch_to_copy(settings, folder, served, predictions, memory, metrics)
            if predictions.trial is None:  # otherwise a trial started during the load, so try again when it has ended
                folder = None
        await asyncio.sleep(_POLL_S)


async def _prepare_copy(
    settings: Settings, copies: PreparedCopies, model: ModelInfo, memory: MemoryBudget, metrics: Metrics
) -> Path | None:
    """Build the copy of a model, and return the model's folder. A failure is counted and logged."""
    folder = None
    try:
        folder = await asyncio.to_thread(find_model_folder, settings, model.version)
        problem = await build_within(memory, encode_job(copies, folder, model.digest))
    except (ArtefactError, RegistryError) as error:
        problem = str(error)
    metrics.preparations.labels("failed" if problem else "done").inc()
    if problem:
        log.warning("model_not_prepared", reason=problem, policy="the artefact is served")
        return None
    log.info("model_prepared", digest=model.digest)
    return folder


async def _switch_to_copy(
    settings: Settings,
    folder: Path,
    served: Backend,
    predictions: PredictionService,
    memory: MemoryBudget,
    metrics: Metrics,
) -> None:
    """Serve the model in `folder` from its copy instead of `served`. If that fails, `served` stays in service.

    Does nothing if another version is in service, or a trial has started, once the copy is loaded.
    """
    thread = LoadingThread("copy")
    try:
        needed = await asyncio.to_thread(estimate_version_bytes, settings, served.info.version)
        async with reserve_when_free(memory, needed):
            unused = backend = await thread.run(partial(open_url, settings, f"onnx://{folder}"))
            report_origin(backend, metrics)
            problem = _find_problem(backend)
            if not problem and predictions.backend is served and predictions.trial is None:
                unused = await wait_for_result(predictions.replace_backend(backend))
            await thread.run(partial(release, unused))
    except ImageTooLargeHere:
        problem = "this machine has too little memory to load it beside the artefact"
    except Exception as error:  # whatever is wrong with the copy, the artefact stays in service
        problem = describe_error(error)[1][0]
    finally:
        thread.close()
    if problem:
        log.warning("prepared_copy_not_loaded", reason=problem, policy="the next load of the model uses the copy")


def _find_problem(backend: Backend) -> str:
    """Return why a back end that has been opened to use a copy does not use it; "" if it does."""
    weights = backend.weights
    if weights is None or weights.origin is Origin.PREPARED:
        return ""
    return f"it cannot be used: {weights.reason}"
