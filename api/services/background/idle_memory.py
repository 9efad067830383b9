"""Returns memory that only predictions need to the system while no request is in progress (ADR 0071)."""

from __future__ import annotations

import asyncio

from api.server.allocator import return_free_memory
from model.backends.base import Backend
from model.serving.service import PredictionService

IDLE_S = 20.0
_CHECK_S = 5.0


async def release_idle_memory(predictions: PredictionService) -> None:
    """Release memory whenever no request has been in progress for IDLE_S seconds, until cancelled."""
    released: Backend | None = None
    while True:
        if predictions.idle_s < IDLE_S:
            released = None
        elif predictions.backend is not released:
            released = predictions.backend
            await predictions.release_memory()
            await asyncio.to_thread(return_free_memory)  # also the pages that requests have freed
        await asyncio.sleep(_CHECK_S)
