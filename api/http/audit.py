"""One word for every act that concerns access: counted, and written down."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request

from api.rate_limits.limiter import caller_address
from monitoring.audit.events import new_event

if TYPE_CHECKING:
    from auth.principal import Principal

# What callers can cause without limit: written in the background, equal ones added up. All else is durable first.
REFUSALS = frozenset({"missing", "invalid", "forbidden", "refused", "not_found"})


async def record(
    request: Request, event: str, outcome: str, *, actor: str | None = None, target: str | None = None, **detail: str
) -> None:
    """Note that `actor` (a subject; the principal's where absent) did `event` to `target`, with what `outcome`.

    Both words come from a fixed set: they label the metric. Nothing secret belongs into `detail`. Raises
    AuditUnavailable, so that the act is not answered unrecorded; but never for a refusal.
    """
    state = request.state
    state.metrics.auth_events.labels(event, outcome).inc()
    principal: Principal | None = getattr(state, "principal", None)
    if actor is None:
        actor = principal.subject if principal else ""
    if principal and principal.key_id and principal.subject == actor:
        detail = {"key": principal.key_id, **detail}
    noted = new_event(
        event,
        outcome,
        actor=actor,
        target=target or "",
        address=caller_address(request),
        request_id=state.request_id,
        detail=detail,
    )
    if outcome in REFUSALS:
        state.audit.refuse(noted)
    else:
        await state.audit.write(noted)
