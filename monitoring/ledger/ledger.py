"""The ledger of one process: a prediction is returned once its entry is durable, in the database or the spool.

While one transaction runs, new entries wait for the next one and share it. An entry can also linger: it waits some
milliseconds for others. Under load the commits are shared, and without load no entry waits. Rejected requests are
written with the next entries, or by themselves a little later.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import structlog
from msgspec import Struct

from monitoring.chains.ids import MonotonicIds
from monitoring.chains.refusals import RefusalAggregator
from monitoring.chains.signing import Signer
from monitoring.chains.timestamps import format_timestamp
from monitoring.errors import LedgerFull, LedgerUnavailable
from monitoring.ledger.batches import CommitResult, PendingEntry
from monitoring.ledger.charges import Charge
from monitoring.ledger.entries import EntryDraft
from monitoring.ledger.journal import Journal
from monitoring.ledger.writing.thread import WriterThread, calling_every

MAX_BATCH = 500
MAX_REFUSALS = 16  # in a transaction, for which predictions wait
COMMIT_TIMEOUT_S = 3.0
DELIVERY_RETRY_S = 0.25
CHECKPOINT_INTERVAL_S = 60.0
REFUSAL_DELAY_S = 0.2
LINGER_S = 0.01  # an entry that lingers for n others waits at most n times this

log = structlog.get_logger("atalaya.ledger")
Facts = dict[str, Any]


class LedgerState(StrEnum):
    """Where entries are written now."""

    WRITING = "writing"  # to the database
    SPOOLING = "spooling"  # to the spool, until the database is available again
    FULL = "full"  # nowhere: no prediction is returned


class _Waiting(Struct, eq=False):
    pending: PendingEntry
    done: asyncio.Future[None]
    linger_for: int


class Ledger:
    """Use it as an asynchronous context manager.

    `on_state(state, spooled)` is called when either changes, `on_entries(count)` when that many entries are durable,
    and `on_checkpoint_failure` for every checkpoint that could not be written. `sleep` waits between checkpoints; it
    may take longer after `close_connection`.
    """

    def __init__(
        self,
        journal: Journal,
        on_state: Callable[[LedgerState, int], None],
        on_entries: Callable[[int], None],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        on_checkpoint_failure: Callable[[], None] = lambda: None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._journal = journal
        self._sleep = sleep
        self._on_state = on_state
        self._on_entries = on_entries
        self._on_checkpoint_failure = on_checkpoint_failure
        self._clock = clock
        self._ids = MonotonicIds(lambda: int(clock().timestamp() * 1000))
        self._thread = WriterThread("ledger")
        self._waiting: list[_Waiting] = []
        self._refusals = RefusalAggregator[Facts](lambda _: object(), _merge_by_code, _add_counts)
        self._refusals_due = False
        self._refusal_timer: asyncio.TimerHandle | None = None
        self._linger_timer: asyncio.TimerHandle | None = None
        self._write_at = math.inf  # when that timer ends: uvloop's handle of a timer that ends at once has no `when`
        self._writer: asyncio.Task[None] | None = None
        self._delivery: asyncio.Task[None] | None = None
        self._checkpoints: asyncio.Task[None] | None = None
        self.state = LedgerState.WRITING
        self._reported = (LedgerState.WRITING, 0)

    async def __aenter__(self) -> Ledger:
        """Begin a chain, and start the background tasks. Raises LedgerUnavailable, OSError."""
        greatest = await self._thread.call(self._journal.open)
        if greatest:
            self._ids.start_after(greatest)
        self._on_state(self.state, 0)
        self._checkpoints = asyncio.create_task(self._write_checkpoints())
        self._update_state()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Write the waiting entries. Spooled entries that cannot be delivered now stay spooled until the next start."""
        await _cancel(self._checkpoints)
        self._write_refusals()
        if self._writer is not None:
            await self._writer
        await _cancel(self._delivery)  # after the last commit, which may have started it
        await self._write_checkpoint()
        await self._thread.call(self._journal.close)
        self._thread.shutdown()

    async def record(self, facts: Facts, charge: Charge | None, *, linger_for: int = 0) -> str:
        """Return the entry's id once it is durable.

        The entry waits for `linger_for` others, at most LINGER_S for each, to share their transaction. Raises
        LedgerFull, and the error of a charge that is rejected.
        """
        draft = self._build_draft(facts)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(PendingEntry(draft, charge), done, linger_for))
        if not linger_for or len(self._waiting) > min(waiting.linger_for for waiting in self._waiting):
            self._start_writing()
        else:
            self._start_writing_within(LINGER_S * linger_for)
        await done
        return draft.id

    async def use_signer(self, signer: Signer) -> None:
        """Sign with another key, from the next batch and checkpoint on."""
        await self._thread.call(self._journal.use_signer, signer)

    def record_refusal(self, facts: Facts) -> None:
        """Queue a request that gets no prediction, to be written soon; never waits and never raises."""
        self._refusals.add(facts)
        if self._refusal_timer is None:
            self._refusal_timer = asyncio.get_running_loop().call_later(REFUSAL_DELAY_S, self._write_refusals)

    async def close_connection(self) -> None:
        """Write a checkpoint, and close the connection to the database until the next write."""
        if self.state is LedgerState.WRITING:
            await self._write_checkpoint()
            await self._thread.call(self._journal.close_connection)

    def _write_refusals(self) -> None:
        if self._refusal_timer is not None:
            self._refusal_timer.cancel()
        self._refusal_timer, self._refusals_due = None, True
        self._start_writing()

    def _build_draft(self, facts: Facts) -> EntryDraft:
        return EntryDraft(self._ids.new(), format_timestamp(self._clock()), facts)

    def _start_writing(self) -> None:
        if self._linger_timer is not None:
            self._linger_timer.cancel()
            self._linger_timer = None
            self._write_at = math.inf
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())

    def _start_writing_within(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._write_at = min(self._write_at, loop.time() + seconds)
        if self._linger_timer is not None:
            self._linger_timer.cancel()
        self._linger_timer = loop.call_at(self._write_at, self._start_writing)

    async def _write(self) -> None:
        """Commit until nothing waits. Rejections that cannot be written keep waiting, in bounded memory."""
        while self._waiting or (self._refusals_due and self._refusals.waiting):
            batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
            # A caller who has disconnected gets no entry and no charge.
            batch = [waiting for waiting in batch if not waiting.done.done()]
            # Rejections get their ids last, after all waiting entries.
            refusals = [] if self._waiting else self._refusals.take(MAX_REFUSALS)
            self._refusals_due = self._refusals_due if self._waiting else bool(self._refusals.waiting)
            drafts = [PendingEntry(self._build_draft(facts), None) for facts in refusals]
            results = await self._commit([waiting.pending for waiting in batch] + drafts)
            for waiting, result in zip(batch, results, strict=False):
                _complete(waiting.done, result)
            if drafts and results[-1] is not None:
                self._refusals.put_back()
                self._refusals_due = False  # retry with later entries: an immediate retry would delay them
            else:
                self._refusals.confirm()

    async def _commit(self, pending: Sequence[PendingEntry]) -> Sequence[CommitResult]:
        if not pending:
            return []
        try:
            # Repeatedly, because a checkpoint that the commit waits for may hang, too.
            with calling_every(COMMIT_TIMEOUT_S, self._journal.abort_transaction):
                results = await self._thread.call(self._journal.commit, pending)
        except Exception as error:  # after any error, no caller may wait forever
            log.exception("ledger_not_written")
            return [error] * len(pending)
        finally:
            self._update_state()
        if self._journal.enabled:
            self._on_entries(sum(not isinstance(result, LedgerFull | LedgerUnavailable) for result in results))
        return results

    def _update_state(self) -> None:
        """Report a change of state, and start delivering if there is anything to deliver."""
        journal, before = self._journal, self.state
        self.state = _find_state(journal)
        self._report_state()
        if before is not self.state:
            level = "info" if self.state is LedgerState.WRITING else "error"
            getattr(log, level)(f"ledger_{self.state}", policy=_POLICIES[self.state], spooled=journal.spooled)
        if (journal.spooling or journal.spooled) and (self._delivery is None or self._delivery.done()):
            self._delivery = asyncio.create_task(self._deliver())

    def _report_state(self) -> None:
        now = self.state, self._journal.spooled
        if now != self._reported:
            self._reported = now
            self._on_state(*now)

    async def _deliver(self) -> None:
        """Deliver the spooled entries as soon as the database responds."""
        while self._journal.spooling or self._journal.spooled:
            try:
                # In another thread: the ledger's own thread must not wait for a database that does not respond.
                await asyncio.to_thread(self._journal.check_connection)
                await self._thread.call(self._journal.deliver)
            except LedgerUnavailable:
                await asyncio.sleep(DELIVERY_RETRY_S)
            except Exception:
                log.exception("ledger_not_delivered")
                await asyncio.sleep(DELIVERY_RETRY_S * 20)
            self._report_state()
        self._update_state()

    async def _write_checkpoints(self) -> None:
        while True:
            await self._sleep(CHECKPOINT_INTERVAL_S)
            await self._write_checkpoint()

    async def _write_checkpoint(self) -> None:
        """Write a checkpoint. Failures are reported: without checkpoints, ends of chains could be cut off unnoticed."""
        try:
            await self._thread.call(self._journal.write_checkpoint)
        except Exception as error:  # even if rows were manipulated, the next attempt must follow in a minute
            self._on_checkpoint_failure()
            log.error(
                "ledger_checkpoint_failed",
                policy="the process tries again in a minute",
                exc_info=not isinstance(error, LedgerUnavailable),
            )


_POLICIES = {
    LedgerState.WRITING: "every prediction is committed to the database before it is returned",
    LedgerState.SPOOLING: "the database is unavailable: every prediction is spooled before it is returned",
    LedgerState.FULL: "neither the database nor the spool can be written: no prediction is returned",
}


def _find_state(journal: Journal) -> LedgerState:
    if journal.full:
        return LedgerState.FULL
    return LedgerState.SPOOLING if journal.spooling else LedgerState.WRITING


def _complete(done: asyncio.Future[None], result: CommitResult) -> None:
    if done.done():
        return
    if result is None:
        done.set_result(None)
    else:
        done.set_exception(result)


def _merge_by_code(facts: Facts) -> tuple[tuple[Any, ...], Facts]:
    return (facts["principal"], facts["key"], facts["code"]), facts


def _add_counts(first: Facts, second: Facts) -> Facts:
    return {**first, "count": first["count"] + second["count"]}


async def _cancel(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
