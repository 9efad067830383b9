"""`/v1/usage`: what was used this month, what it costs, and what remains of the quotas."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request

from api.deps import Costs, CurrentPrincipal, SettingsDep, Usage, Users, choose_user
from api.http.problems import document_problems
from api.schemas.fields import UserId
from api.schemas.usage import CostResponse, KeyUsage, UsageResponse
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
    subject = await choose_user(request, users, principal, user, "usage", target=f"user:{user}")
    owners = list_owners(principal) if subject == principal.subject else (user_owner(subject),)
    report = await usage.report(owners)
    own, *keys = (KeyUsage.of_tally(tally) for tally in report.tallies)
    return UsageResponse(
        **dict(own),
        month=report.month,
        resets_at=report.resets_at,
        cost=CostResponse.of(await costs.compute(subject, report.month), settings.cost.currency),
        key=keys[0] if keys else None,
    )
