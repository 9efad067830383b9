"""What predictions cost, and who has used up what may be spent."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.requests import Request

from api.deps import State
from api.http.audit import record
from api.schemas.usage import Amounts, Bounds, DryRunResponse
from auth.errors import QuotaExceeded
from auth.principal import Principal
from auth.quotas.tallies import PIXELS_IN_MEGAPIXEL, list_owners


async def report_refusal(refusal: QuotaExceeded, request: Request, rooms: State) -> None:
    """Count a request that a quota refuses, and note it in the record of access."""
    rooms["metrics"].rate_limited.labels("quota").inc()
    await record(request, "quota", "refused", quota=refusal.quota, holder=refusal.holder)


async def dry_run(rooms: State, principal: Principal, pixels: int) -> DryRunResponse:
    """What a prediction would cost, and what is left to pay it from. Raises DatabaseUnavailable."""
    report = await rooms["meter"].report(list_owners(principal))
    requests = _least(tally.remaining[0] for tally in report.tallies)
    megapixels = _least(tally.remaining[1] for tally in report.tallies)
    return DryRunResponse(
        cost=Amounts(requests=1, megapixels=pixels / PIXELS_IN_MEGAPIXEL), remaining=Bounds.of((requests, megapixels))
    )


def _least(parts: Iterable[int | None]) -> int | None:
    return min((part for part in parts if part is not None), default=None)
