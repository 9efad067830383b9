"""Audit records of what callers do, whatever transport they use: counted, and written to the audit log."""

from __future__ import annotations

from prometheus_client import Counter
from sqlalchemy.ext.asyncio import AsyncConnection

from auth.principal import Principal
from monitoring.audit.events import new_event
from monitoring.audit.trail import AuditTrail

# Callers can cause any number of these, so the trail writes them in the background and merges equal ones.
# Every other outcome is durable before the caller gets a response.
BACKGROUND_OUTCOMES = frozenset(
    {"missing", "invalid", "forbidden", "refused", "unrecorded", "not_found", "rate_limited", "misdirected"}
)


class AuditRecorder:
    """Counts events in `counter`, by event and outcome, and writes them to `trail`."""

    def __init__(self, trail: AuditTrail, counter: Counter) -> None:
        self._trail = trail
        self._counter = counter

    async def record(  # noqa: PLR0913  (each is a field of the entry)
        self,
        event: str,
        outcome: str,
        *,
        principal: Principal | None,
        address: str,
        request_id: str,
        actor: str | None = None,
        target: str = "",
        within: AsyncConnection | None = None,
        **detail: str,
    ) -> None:
        """Record that `actor` (a subject; by default the principal's) did `event` to `target`, with this outcome.

        `event` and `outcome` come from a fixed set, because they label the metric. `detail` must not contain secrets.
        With `within`, an outcome that must be durable is written in the transaction of that connection, right before
        the commit; see storage.transactions.Record. Raises AuditUnavailable when it cannot be written.
        """
        if actor is None:
            actor = principal.subject if principal else ""
        if principal and principal.key_id and principal.subject == actor:
            detail = {"key": principal.key_id, **detail}
        recorded = new_event(
            event, outcome, actor=actor, target=target, address=address, request_id=request_id, detail=detail
        )
        if outcome in BACKGROUND_OUTCOMES:
            self._trail.record_refusal(recorded)
        elif within is not None:
            await self._trail.write_within(within, recorded)
        else:
            await self._trail.write(recorded)
        self._counter.labels(event, outcome).inc()
