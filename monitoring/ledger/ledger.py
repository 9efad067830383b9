"""The ledger of one process: an answer leaves once its entry is durable, here or in the spool.

While one transaction runs, the entries that arrive wait for the next and share it; one that has time waits a few
milliseconds for another. So a crowd does not cost a commit a request, and a lone caller waits for nobody. Refusals, for
which nobody waits, go with the next answers, or by themselves a little later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeVar

import structlog

from monitoring.errors import LedgerFull, LedgerUnavailable
from monitoring.ledger.entries import Draft, written_time
from monitoring.ledger.identity import Ids
from monitoring.ledger.journal import Charge, Journal, Outcome, Wanted
from monitoring.ledger.refusals import Refusals

MOST_AT_ONCE = 500
COMMIT_LIMIT_S = 3.0
HEAL_EVERY_S = 0.25
CHECKPOINT_EVERY_S = 60.0
REFUSALS_WAIT_S = 0.2
LINGER_S = 0.01

log = structlog.get_logger("atalaya.ledger")
T = TypeVar("T")


class State(StrEnum):
    """Where entries go now."""

    WRITING = "writing"  # into the database
    SPOOLING = "spooling"  # into the spool, until the database is back
    FULL = "full"  # nowhere: nothing is answered


@dataclass(slots=True, eq=False)
class _Waiting:
    wanted: Wanted
    done: asyncio.Future[None]


class Ledger:
    """Use it as an asynchronous context manager.

    `on_state(state, spooled)` is called when either changes, `on_entries(count)` when so many are durable.
    """

    def __init__(
        self,
        journal: Journal,
        on_state: Callable[[State, int], None],
        on_entries: Callable[[int], None],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._journal = journal
        self._on_state = on_state
        self._on_entries = on_entries
        self._clock = clock
        self._ids = Ids()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._waiting: list[_Waiting] = []
        self._refusals = Refusals()
        self._refusals_due = False
        self._reminder: asyncio.TimerHandle | None = None
        self._linger: asyncio.TimerHandle | None = None
        self._writer: asyncio.Task[None] | None = None
        self._healer: asyncio.Task[None] | None = None
        self._checkpoints: asyncio.Task[None] | None = None
        self.state = State.WRITING
        self._told = (State.WRITING, 0)

    async def __aenter__(self) -> Ledger:
        """Raises LedgerUnavailable, OSError."""
        greatest = await self._in_thread(self._journal.open)
        if greatest:
            self._ids.start_after(greatest)
        self._on_state(self.state, 0)
        self._checkpoints = asyncio.create_task(self._keep_checkpoints())
        self._update_state()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Write what waits; what cannot be delivered now stays in the spool for the next start."""
        for task in (self._checkpoints, self._healer):
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
        self._write_refusals()
        if self._writer is not None:
            await self._writer
        with suppress(LedgerUnavailable):
            await self._in_thread(self._journal.checkpoint)
        await self._in_thread(self._journal.close)
        self._thread.shutdown()

    async def record(self, facts: dict[str, Any], charge: Charge | None, *, has_time: bool = False) -> str:
        """Return the entry's id once it is durable. Raises LedgerFull, and the error of a charge that is refused.

        One that `has_time` waits up to LINGER_S for another, to share its transaction.
        """
        draft = self._draft(facts)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(Wanted(draft, charge), done))
        if has_time and len(self._waiting) == 1:
            self._linger = asyncio.get_running_loop().call_later(LINGER_S, self._wake)
        else:
            self._wake()
        await done
        return draft.id

    def refuse(self, facts: dict[str, Any]) -> None:
        """Note a request that gets no prediction; it is written soon. Never waits and never raises."""
        self._refusals.add(facts)
        if self._reminder is None:
            self._reminder = asyncio.get_running_loop().call_later(REFUSALS_WAIT_S, self._write_refusals)

    def _write_refusals(self) -> None:
        if self._reminder is not None:
            self._reminder.cancel()
        self._reminder, self._refusals_due = None, True
        self._wake()

    def _draft(self, facts: dict[str, Any]) -> Draft:
        return Draft(self._ids.new(), written_time(self._clock()), facts)

    def _wake(self) -> None:
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())

    async def _write(self) -> None:
        """Commit until nothing waits. Refusals that cannot be written wait on, in bounded memory."""
        while self._waiting or (self._refusals and self._refusals_due):
            batch, self._waiting = self._waiting[:MOST_AT_ONCE], self._waiting[MOST_AT_ONCE:]
            # Who has left already gets no entry and pays nothing.
            batch = [waiting for waiting in batch if not waiting.done.done()]
            # Their ids are given now: those of all who wait came before.
            refusals = [] if self._waiting else self._refusals.take()
            self._refusals_due = self._refusals_due and bool(self._waiting)
            drafts = [Wanted(self._draft(facts), None) for facts in refusals]
            outcomes = await self._commit([waiting.wanted for waiting in batch] + drafts)
            for waiting, outcome in zip(batch, outcomes, strict=False):
                if not waiting.done.done():
                    waiting.done.set_result(None) if outcome is None else waiting.done.set_exception(outcome)
            if drafts and outcomes[-1] is not None:
                self._refusals.put_back(refusals)
                self._refusals_due = False  # until there are more; whoever waits for an answer is served on

    async def _commit(self, wanted: Sequence[Wanted]) -> Sequence[Outcome]:
        if not wanted:
            return []
        patience = asyncio.get_running_loop().call_later(COMMIT_LIMIT_S, self._journal.break_off)
        try:
            outcomes = await self._in_thread(self._journal.commit, wanted)
        except Exception as error:  # whatever it is, nobody may wait for ever
            log.exception("ledger_not_written")
            return [error] * len(wanted)
        finally:
            patience.cancel()
            self._update_state()
        self._on_entries(sum(not isinstance(outcome, LedgerFull | LedgerUnavailable) for outcome in outcomes))
        return outcomes

    def _update_state(self) -> None:
        """Say what has changed, and see to it that the database is tried again."""
        journal = self._journal
        self.state = State.FULL if journal.full else State.SPOOLING if journal.spooling else State.WRITING
        told, self._told = self._told, (self.state, journal.spooled)
        if told != self._told:
            self._on_state(*self._told)
        if told[0] is not self.state:
            level = "info" if self.state is State.WRITING else "error"
            getattr(log, level)(f"ledger_{self.state}", policy=_POLICIES[self.state], spooled=journal.spooled)
        if (journal.spooling or journal.spooled) and (self._healer is None or self._healer.done()):
            self._healer = asyncio.create_task(self._heal())

    async def _heal(self) -> None:
        """Deliver what was spooled as soon as the database answers."""
        while self._journal.spooling or self._journal.spooled:
            try:
                # Another thread: where the database does not answer, the ledger's own must not wait for it.
                await asyncio.to_thread(self._journal.reach)
                await self._in_thread(self._journal.deliver)
            except LedgerUnavailable:
                await asyncio.sleep(HEAL_EVERY_S)
            except Exception:
                log.exception("ledger_not_delivered")
                await asyncio.sleep(HEAL_EVERY_S * 20)
            told, self._told = self._told, (self.state, self._journal.spooled)
            if told != self._told:
                self._on_state(*self._told)
        self._update_state()

    async def _keep_checkpoints(self) -> None:
        while True:
            await asyncio.sleep(CHECKPOINT_EVERY_S)
            with suppress(LedgerUnavailable):
                await self._in_thread(self._journal.checkpoint)

    def _in_thread(self, act: Callable[..., T], *arguments: Any) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._thread, act, *arguments)


_POLICIES = {
    State.WRITING: "every answer is in the database first",
    State.SPOOLING: "the database is away: every answer is in the spool first, and delivered later",
    State.FULL: "neither database nor spool can be written: no prediction is answered",
}
