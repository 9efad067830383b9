"""The prepared copy of the model: where it is, and its build in the background for the next start (ADR 0029)."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress

import structlog

from api.services.registry import find_model_folder
from api.settings import Settings
from model.backends.base import ModelInfo, Origin, Weights
from model.backends.prepared.copies import PreparedCopies, derive_key, encode_job
from model.errors import ArtefactError, ImageTooLargeHere, MemoryFull
from model.registry.errors import RegistryError
from model.serving.memory_budget import MemoryBudget
from model.serving.service import PredictionService
from monitoring.metrics import Metrics

BUILD_BYTES = 160 << 20
"""Peak memory of the process that builds a copy. Measured: 168 MB, of which 10 MB are library pages."""

RETRY_S = 5.0
_POLL_S = 1.0  # how often to check for another version in service
BUILD_LIMIT_S = 300.0
_OUTCOMES = ("done", "failed")
_CALLER = "preparation"  # in the memory budget; no principal has this name
# glibc settings for a small process: one arena, and large blocks returned at once. The process gets no other variable,
# and so none of the gateway's secrets.
_ENVIRONMENT = {"GLIBC_TUNABLES": "glibc.malloc.arena_max=1:glibc.malloc.mmap_threshold=1048576"}

log = structlog.get_logger("atalaya.preparation")


def find_copies(settings: Settings) -> PreparedCopies | None:
    """Return where the prepared copies are; None with MODEL__PREPARE=false or without LEDGER__SIGNING_KEY.

    The key that authenticates their records is derived from the ledger key, so that an attacker who can write to their
    folder, but not read the gateway's secrets, cannot forge a copy.
    """
    if not settings.model.prepare or settings.ledger.signing_key is None:
        return None
    return PreparedCopies(settings.model.prepared_folder, derive_key(settings.ledger_key()))


def show_counters(metrics: Metrics) -> None:
    """Expose every outcome from the start: Prometheus sees no increase in a series that begins above 0."""
    for origin in Origin:
        metrics.weights_loaded.labels(origin)
    for outcome in _OUTCOMES:
        metrics.preparations.labels(outcome)


def report_origin(weights: Weights, metrics: Metrics) -> None:
    """Count and log where the model's weights were loaded from."""
    metrics.weights_loaded.labels(weights.origin).inc()
    if weights.origin is Origin.REJECTED:
        log.warning("prepared_copy_rejected", reason=weights.reason, policy="the artefact is served")
    else:
        log.info("weights_loaded", origin=weights.origin)


async def keep_prepared(
    settings: Settings, predictions: PredictionService, memory: MemoryBudget, metrics: Metrics
) -> None:
    """Build the prepared copy of each version that is served without one, until cancelled."""
    copies = find_copies(settings)
    if copies is None:
        return
    seen: ModelInfo | None = None
    while True:
        served, weights = predictions.model, predictions.backend.weights
        if served is not seen and weights is not None and weights.origin is not Origin.PREPARED:
            await _prepare_copy(settings, copies, served, memory, metrics)
        seen = served
        await asyncio.sleep(_POLL_S)


async def _prepare_copy(
    settings: Settings, copies: PreparedCopies, model: ModelInfo, memory: MemoryBudget, metrics: Metrics
) -> None:
    """Build the copy of a model. A failure is counted and logged."""
    try:
        folder = await asyncio.to_thread(find_model_folder, settings, model.version)
        problem = await _build_within(memory, encode_job(copies, folder, model.digest))
    except (ArtefactError, RegistryError) as error:
        problem = str(error)
    metrics.preparations.labels("failed" if problem else "done").inc()
    if problem:
        log.warning("model_not_prepared", reason=problem, policy="the artefact is served")
    else:
        log.info("model_prepared", digest=model.digest, policy="the next load of the model uses the copy")


async def _build_within(memory: MemoryBudget, job: bytes) -> str:
    """Build the copy as soon as the budget has enough memory. Returns what went wrong, or "" if nothing did."""
    while True:
        try:
            async with memory.reserve(0, _CALLER) as reservation:
                await reservation.resize(BUILD_BYTES, while_waiting=0)
                return await _build(job)
        except ImageTooLargeHere:
            return "this machine has too little memory; run `atalaya models prepare` while the gateway is stopped"
        except MemoryFull:
            await asyncio.sleep(RETRY_S)


async def _build(job: bytes) -> str:
    """Build the copy in a subprocess. Returns what went wrong, or "" if nothing did.

    The subprocess has its own session, so that Ctrl-C reaches only the gateway, which then kills the subprocess.
    """
    command, pipe = (sys.executable, "-m", "model.backends.prepared"), asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *command, stdin=pipe, stderr=pipe, env=_ENVIRONMENT, start_new_session=True
    )
    try:
        async with asyncio.timeout(BUILD_LIMIT_S):
            _, errors = await process.communicate(job)
    except TimeoutError:
        return f"the build took more than {BUILD_LIMIT_S:.0f} s"
    finally:
        with suppress(ProcessLookupError):
            process.kill()
    if not process.returncode:
        return ""
    return errors.decode(errors="replace").strip() or f"the process that builds it ended with {process.returncode}"
