"""Two ways into the record: durable before the act is answered, or in the background for refusals.

A flood of refusals can neither block nor fill the disk: equal ones are added up, they are written twice a second, and
past a burst only a few distinct ones a second are told apart; the others are added up by event and outcome.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress

import structlog

from monitoring.audit.events import Event
from monitoring.audit.store import AuditStore
from monitoring.errors import AuditUnavailable

FLUSH_S = 0.5
BURST = 200  # distinct refusals
REFILL_PER_S = 10.0

log = structlog.get_logger("atalaya.audit")


class AuditTrail:
    """What one process has to record. `on_failure` is called for every attempt to write that failed."""

    def __init__(
        self, store: AuditStore, on_failure: Callable[[], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.store = store
        self._on_failure = on_failure
        self._clock = clock
        self._turn = asyncio.Lock()  # one connection is enough: writers would only wait for each other in the database
        self._writable = True
        self._waiting: dict[tuple[str, ...], Event] = {}
        self._budget = float(BURST)
        self._flushed_at = clock()

    async def write(self, event: Event) -> None:
        """Return once the event is durable. Raises AuditUnavailable."""
        await self._append([event])

    def refuse(self, event: Event) -> None:
        """Note a refusal, to be written within a second; never waits and never raises."""
        if event.kind not in self._waiting and len(self._waiting) >= self._budget:
            event = event.without_particulars()
        equal = self._waiting.get(event.kind)
        self._waiting[event.kind] = equal.again(event.count) if equal else event

    async def flush(self) -> None:
        """Write the refusals that wait; while that cannot be done they go on waiting, in bounded memory."""
        now = self._clock()
        self._budget = min(self._budget + (now - self._flushed_at) * REFILL_PER_S, BURST)
        self._flushed_at = now
        batch, self._waiting = self._waiting, {}
        if not batch:
            return
        try:
            await self._append(list(batch.values()))
        except AuditUnavailable:
            since, self._waiting = self._waiting, batch
            for event in since.values():
                self.refuse(event)
        else:
            self._budget -= len(batch)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[AuditTrail]:
        """Write refusals in the background; the last ones on the way out."""
        stopping = asyncio.Event()
        task = asyncio.create_task(self._flush_until(stopping))
        try:
            yield self
        finally:
            stopping.set()
            await task

    async def _flush_until(self, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_S):
                    await stopping.wait()
            await self.flush()
        if self._waiting:
            log.error("audit_lost", refusals=sum(event.count for event in self._waiting.values()))

    async def _append(self, events: Sequence[Event]) -> None:
        try:
            async with self._turn:
                await self.store.append(events)
        except AuditUnavailable:
            self._on_failure()
            if self._writable:
                log.error("audit_unwritable", policy="refuse what must be recorded, keep refusals in memory")
            self._writable = False
            raise
        self._writable = True
