"""What describes the running process itself: its settings, metrics and health, and whether it is shutting down."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncEngine

from api.http.draining import Draining
from api.rate_limits.limiter import CallerLimits
from api.services.mirror.problem import read_problem
from api.services.serving import ServingServices
from api.settings import Settings
from monitoring.errors import LedgerFull
from monitoring.health import Check, Health
from monitoring.ledger.ledger import Ledger, LedgerState
from monitoring.metrics import Metrics
from storage.errors import DatabaseUnavailable
from storage.transactions import ping

PING_LIMIT_S = 0.8


@dataclass(frozen=True, slots=True)
class RuntimeServices:
    """Nothing here needs to be opened or closed."""

    settings: Settings
    metrics: Metrics
    health: Health
    draining: Draining
    limits: CallerLimits


def build_health_checks(
    settings: Settings, engine: AsyncEngine, ledger: Ledger, limits: CallerLimits, serving: ServingServices
) -> dict[str, Check]:
    """The checks of readiness, by the name that /readyz shows."""

    async def database() -> str | None:
        try:
            async with asyncio.timeout(PING_LIMIT_S):
                await ping(engine)
        except (DatabaseUnavailable, TimeoutError) as error:
            if ledger.state is not LedgerState.SPOOLING:
                raise
            # Still ready: known credentials are accepted, and the spool takes the ledger's entries.
            return type(error).__name__
        return None

    async def recording() -> str | None:
        if ledger.state is LedgerState.FULL:
            raise LedgerFull
        return None if ledger.state is LedgerState.WRITING else ledger.state

    async def model() -> str | None:
        """Loaded and warmed before the first request was accepted; it fails only when a thread is stuck.

        While the version that the alias names cannot be served or pulled, the state is the code of the reason.
        """
        serving.predictions.check_threads()
        if serving.follower is None:
            return None
        return serving.follower.problem or await asyncio.to_thread(read_problem, settings)

    shared = {"limits": limits.check_store} if limits.shared else {}
    return {"database": database, "ledger": recording, **shared, "model": model}
