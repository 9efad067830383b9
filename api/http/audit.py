"""Audit records of HTTP requests."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.requests import Request

from api.rate_limits.callers import caller_address


async def record_event(
    request: Request,
    event: str,
    outcome: str,
    *,
    actor: str | None = None,
    target: str = "",
    within: AsyncConnection | None = None,
    **detail: str,
) -> None:
    """Count and record what the request did, or tried to do: see AuditRecorder.record. Raises AuditUnavailable."""
    state = request.state
    await state.services.recording.audit.record(
        event,
        outcome,
        principal=getattr(state, "principal", None),
        address=caller_address(request),
        request_id=state.request_id,
        actor=actor,
        target=target,
        within=within,
        **detail,
    )
