"""One word for every act that concerns access: counted, and written down."""

from __future__ import annotations

from starlette.requests import Request


async def record(
    request: Request, event: str, outcome: str, *, actor: str | None = None, target: str | None = None, **detail: str  # noqa: ARG001
) -> None:
    """Note that `actor` (a subject; the principal's where absent) did `event` to `target`, with what `outcome`.

    Both words come from a fixed set: they label the metric. Nothing secret belongs into `detail`.
    """
    request.state.metrics.auth_events.labels(event, outcome).inc()
