"""Writes to the audit log: actions before they are acknowledged, and rejected requests in the background.

Any number of rejected requests can neither block the service nor fill the disk: they are aggregated, and written twice
a second. When the aggregator has spent its budget, it counts further ones only by event and outcome.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from monitoring.audit.events import AuditEvent
from monitoring.audit.store import AuditStore, append_within
from monitoring.chains.refusals import RefusalAggregator
from monitoring.errors import AuditUnavailable

FLUSH_S = 0.5
LOCK_LIMIT_S = 6.0  # a second more than a transaction waits for the lock of the chain

log = structlog.get_logger("atalaya.audit")


class AuditTrail:
    """Records the events of one process. `on_failure` is called for every failed attempt to write."""

    def __init__(
        self, store: AuditStore, on_failure: Callable[[], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.store = store
        self._on_failure = on_failure
        self._write_lock = asyncio.Lock()  # writers would only wait for each other in the database
        self._writable = True
        self._refusals = RefusalAggregator[AuditEvent](
            lambda event: event.merge_key, _without_details, AuditEvent.merge, clock
        )

    async def write(self, event: AuditEvent) -> None:
        """Return once the event is durable. Raises AuditUnavailable."""
        await self._append([event])

    async def write_within(self, connection: AsyncConnection, event: AuditEvent) -> None:
        """Write the event as the last statements of a transaction, whose commit makes it durable.

        It does not wait for `write` and `flush`, which may wait for that transaction. Raises AuditUnavailable.
        """
        with self._failures_reported():
            await append_within(connection, [event])

    def record_refusal(self, event: AuditEvent) -> None:
        """Queue a rejected request to be written within a second; never waits and never raises."""
        self._refusals.add(event)

    async def flush(self) -> None:
        """Write the waiting rejections. If that fails, they keep waiting, in bounded memory."""
        batch = self._refusals.take()
        if not batch:
            return
        try:
            await self._append(batch)
        except AuditUnavailable:
            self._refusals.put_back()
        else:
            self._refusals.confirm()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[AuditTrail]:
        """Write rejections in the background, and the remaining ones on exit."""
        stopping = asyncio.Event()
        task = asyncio.create_task(self._flush_until(stopping))
        try:
            yield self
        finally:
            stopping.set()
            await task

    async def _flush_until(self, stopping: asyncio.Event) -> None:
        stopped = False
        while not stopped:
            with suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_S):
                    await stopping.wait()
            # Read before the flush: rejections recorded during this flush need another flush.
            stopped = stopping.is_set()
            await self.flush()
        if lost := self._refusals.waiting:
            log.error("audit_lost", refusals=sum(event.count for event in lost))

    async def _append(self, events: Sequence[AuditEvent]) -> None:
        with self._failures_reported():
            async with self._locked():
                await self.store.append(events)

    @asynccontextmanager
    async def _locked(self) -> AsyncIterator[None]:
        """Wait for earlier writes of this process, for at most LOCK_LIMIT_S. Raises AuditUnavailable."""
        try:
            async with asyncio.timeout(LOCK_LIMIT_S):
                await self._write_lock.acquire()
        except TimeoutError:
            raise AuditUnavailable from None
        try:
            yield
        finally:
            self._write_lock.release()

    @contextmanager
    def _failures_reported(self) -> Iterator[None]:
        try:
            yield
        except AuditUnavailable:
            self._on_failure()
            if self._writable:
                log.error(
                    "audit_unwritable",
                    policy="requests that must be recorded are rejected, and rejections wait in memory",
                )
            self._writable = False
            raise
        self._writable = True


def _without_details(event: AuditEvent) -> tuple[tuple[str, ...], AuditEvent]:
    reduced = event.without_details()
    return reduced.merge_key, reduced
