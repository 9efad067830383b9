"""`/v1/usage`: what was used this month, what it costs, and what remains of the quotas."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request

from api.deps import Costs, CurrentPrincipal, SettingsDep, Usage, Users
from api.http.audit import record_event
from api.http.problems import document_problems
from api.schemas.fields import UserId
from api.schemas.usage import CostResponse, KeyUsage, UsageResponse
from auth.errors import InsufficientScope
from auth.principal import Scope
from auth.quotas.tallies import list_owners, user_owner

router = APIRouter(tags=["account"], responses=document_problems(401, 403, 404, 422, 503))


@router.get("/v1/usage")
async def show(
    request: Request,
    users: Users,
    usage: Usage,
    costs: Costs,
    settings: SettingsDep,
    principal: CurrentPrincipal,
    user: UserId | None = None,
) -> UsageResponse:
    """The caller's own usage; with `users:admin`, that of the user with the id `user`."""
    owners, subject = list_owners(principal), principal.subject
    if user is not None and user != principal.subject:
        try:
            principal.require(Scope.USERS_ADMIN)
        except InsufficientScope as error:
            await record_event(request, "usage", "refused", target=f"user:{user}", code=error.code)
            raise
        subject = (await users.get(user)).id
        owners = (user_owner(subject),)
    report = await usage.report(owners)
    own, *keys = (KeyUsage.of_tally(tally) for tally in report.tallies)
    return UsageResponse(
        **dict(own),
        month=report.month,
        resets_at=report.resets_at,
        cost=CostResponse.of(await costs.compute(subject, report.month), settings.cost.currency),
        key=keys[0] if keys else None,
    )
