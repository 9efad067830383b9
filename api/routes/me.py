"""`/v1/me`: what the gateway knows of the caller."""

from __future__ import annotations

from fastapi import APIRouter

from api.deps import CurrentPrincipal
from api.schemas import Me

router = APIRouter(tags=["account"])


@router.get("/v1/me")
async def me(principal: CurrentPrincipal) -> Me:
    """The caller's subject, role and scopes, and when the credentials end."""
    return Me(
        subject=principal.subject,
        name=principal.name,
        role=principal.role,
        scopes=sorted(principal.scopes),
        expires_at=principal.expires_at,
    )
