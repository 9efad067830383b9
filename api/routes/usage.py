"""`/v1/usage`: what was used this month, and what is left of the quotas."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.requests import Request

from api.deps import CurrentPrincipal, Rooms
from api.http.audit import record
from api.schemas.predictions import Problem
from api.schemas.usage import KeyUsage, UsageResponse
from auth.errors import InsufficientScope
from auth.principal import Scope
from auth.quotas.tallies import list_owners, user_owner

_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "content": {"application/problem+json": {}}} for status in (401, 403, 404, 422, 503)
}

router = APIRouter(tags=["account"], responses=_REFUSALS)
UserId = Annotated[str, Query(pattern=r"^[0-9a-f-]{36}$", description="another user's id")]


@router.get("/v1/usage")
async def show(
    request: Request, rooms: Rooms, principal: CurrentPrincipal, user: UserId | None = None
) -> UsageResponse:
    """The caller's own use; with `users:admin`, also that of the user with the id `user`."""
    owners = list_owners(principal)
    if user is not None and user != principal.subject:
        try:
            principal.require(Scope.USERS_ADMIN)
        except InsufficientScope as error:
            await record(request, "usage", "refused", target=f"user:{user}", code=error.code)
            raise
        owners = (user_owner((await rooms["accounts"].get(user)).id),)
    report = await rooms["meter"].report(owners)
    own, *keys = (KeyUsage.of_tally(tally) for tally in report.tallies)
    return UsageResponse(**dict(own), month=report.month, resets_at=report.resets_at, key=keys[0] if keys else None)
