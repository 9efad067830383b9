"""Predictions that are paid for: charged before the image is decoded, paid back when no answer comes of it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from starlette.requests import Request

from api.audit import record
from api.deps import State
from api.usage_schemas import Amounts, Bounds, DryRunAnswer
from auth.errors import QuotaExceeded
from auth.principal import Principal
from auth.quotas import PIXELS_IN_MEGAPIXEL, owners_of


@asynccontextmanager
async def charged(request: Request, rooms: State, pixels: int) -> AsyncIterator[None]:
    """Charge the caller for one image; what fails inside costs nothing. Raises QuotaExceeded, DatabaseUnavailable."""
    metrics, meter = rooms["metrics"], rooms["meter"]
    principal: Principal = request.state.principal
    started = time.perf_counter()
    try:
        charge = await meter.charge(principal, pixels)
    except QuotaExceeded as error:
        metrics.rate_limited.labels("quota").inc()
        await record(request, "quota", "refused", quota=error.quota, holder=error.holder)
        raise
    finally:
        metrics.stage_seconds.labels("quota").observe(time.perf_counter() - started)
    try:
        yield
    except BaseException:
        meter.refund(charge)
        raise


async def dry_run(rooms: State, principal: Principal, pixels: int) -> DryRunAnswer:
    """What a prediction would cost, and what is left to pay it from. Raises DatabaseUnavailable."""
    report = await rooms["meter"].report(owners_of(principal))
    requests = _least(tally.remaining[0] for tally in report.tallies)
    megapixels = _least(tally.remaining[1] for tally in report.tallies)
    return DryRunAnswer(
        cost=Amounts(requests=1, megapixels=pixels / PIXELS_IN_MEGAPIXEL), remaining=Bounds.of((requests, megapixels))
    )


def _least(parts: Iterable[int | None]) -> int | None:
    return min((part for part in parts if part is not None), default=None)
