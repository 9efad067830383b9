"""Services that turn images into predictions: the model, its queue, and the memory for images."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache

import structlog
from msgspec import Struct

from api.http.draining import Draining
from api.server.allocator import return_free_memory
from api.server.timeouts import THREADS_LIMIT_S
from api.services.aliases.following import follow_alias
from api.services.background import run_in_background
from api.services.background.activity import Activity
from api.services.background.idle_memory import release_idle_memory
from api.services.capacity import GROWTH_BYTES, MIN_BYTES, count_inference_threads
from api.services.measuring.engines import observe_engines
from api.services.mirror.process import count_puller_bytes, keep_pulling
from api.services.personal_data.keeper import KEEPING_BYTES
from api.services.prepared_copies.finding import report_origin, show_counters
from api.services.prepared_copies.keeping import keep_prepared
from api.settings import Settings
from model.backends.base import Backend
from model.serving.alias_follower import AliasFollower
from model.serving.memory_budget import MemoryBudget
from model.serving.overload_policy import QueueLimits
from model.serving.service import PredictionService
from monitoring.machine.cgroups import memory_limit_bytes
from monitoring.machine.memory import private_bytes, resident_bytes
from monitoring.metrics import Metrics

log = structlog.get_logger("atalaya.serving")


class ServingServices(Struct, frozen=True):
    """The prediction service, and the memory that requests must reserve for their images.

    `follower` keeps the service on the version that an alias names, if MODEL__URL contains one.
    """

    predictions: PredictionService
    memory: MemoryBudget
    follower: AliasFollower | None


@asynccontextmanager
async def open_backend(open_model: Callable[[], Backend], metrics: Metrics) -> AsyncIterator[Backend]:
    """Load the model in a thread, and describe it in the metrics and the log. Raises ArtefactError."""
    backend = await asyncio.to_thread(open_model)
    try:
        info = backend.info
        metrics.model_info.labels(info.name, info.version, info.digest, info.backend).set(1)
        metrics.memory_limit_bytes.set(memory_limit_bytes())
        log.info("model_loaded", model=info.full_name, digest=info.digest, backend=info.backend)
        show_counters(metrics)
        observe_engines(backend, metrics)
        report_origin(backend, metrics)
        yield backend
    finally:
        backend.close()


@asynccontextmanager
async def open_serving_services(
    settings: Settings, backend: Backend, metrics: Metrics, draining: Draining, activity: Activity
) -> AsyncIterator[ServingServices]:
    """Start and watch the worker threads. Open this group last, because its budget is the memory that the others leave.

    If a thread is stuck, the replacement of the process is requested through `draining`.
    """
    threads = count_inference_threads(settings)
    log.info("inference_threads", threads=threads)
    get_stage_seconds = cache(metrics.stage_seconds.labels)
    predictions = PredictionService(
        backend,
        workers=threads,
        limits=QueueLimits(settings.model.queue_limit, settings.model.queue_seconds),
        on_stage=lambda stage, seconds: get_stage_seconds(stage).observe(seconds),
    )
    metrics.stuck_jobs.inc(draining.stuck_jobs)
    draining.cut_off = predictions.expire_all

    def report_stuck_job(stage: str, caller: str) -> None:
        log.error("worker_stuck", stage=stage, principal=caller, policy="the process is replaced")
        metrics.stuck_jobs.inc()
        draining.count_stuck_job()

    try:
        return_free_memory()
        memory = MemoryBudget(image_memory_bytes(settings, backend), on_change=metrics.memory_reserved_bytes.set)
        metrics.memory_budget_bytes.set(memory.total)
        async with (
            # After the budget, which must count this memory as used.
            run_in_background(release_idle_memory(predictions)),
            run_in_background(predictions.watch(settings.model.stuck_seconds, report_stuck_job)),
            run_in_background(keep_prepared(settings, predictions, memory, metrics)),
            keep_pulling(settings, metrics, activity),
            follow_alias(settings, predictions, memory, metrics) as follower,
        ):
            yield ServingServices(predictions, memory, follower)
    finally:
        if not predictions.close(THREADS_LIMIT_S):
            log.warning("worker_abandoned", policy="its thread ends with the process")
        predictions.backend.close()


def image_memory_bytes(settings: Settings, backend: Backend) -> int:
    """Return the bytes for this process's images: MODEL__MEMORY_MEGABYTES, or else what the container's limit leaves.

    Subtracted from the limit first: the process that pulls from an MLflow server and, with several workers, the
    supervisor and the prepared weights, which they share. Each worker gets an equal part of the rest, minus the memory
    that it already uses, its expected growth and the memory for images that wait to be kept; at least MIN_BYTES. The
    worker that starts first counts the weights twice, because they look private until another worker maps them.
    """
    if settings.model.memory_megabytes is not None:
        return settings.model.memory_megabytes << 20
    limit, workers = memory_limit_bytes(), settings.web_concurrency
    at_rest = resident_bytes() if workers == 1 else private_bytes()
    shared = count_puller_bytes(settings)
    if workers > 1:
        shared += resident_bytes(os.getppid()) + (backend.weights.shared_bytes if backend.weights else 0)
    growth = GROWTH_BYTES if settings.images.url is None else GROWTH_BYTES + KEEPING_BYTES
    left = (limit - shared) // workers - at_rest - growth
    write = log.info if left >= MIN_BYTES else log.warning
    write("memory_for_images", bytes=max(left, MIN_BYTES), limit_bytes=limit, at_rest_bytes=at_rest)
    return max(left, MIN_BYTES)
