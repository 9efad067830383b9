"""Propagates revocations and changes of credentials to every process within a second, without a query per request.

Each change is a row. Its number comes from a counter that stays locked until the commit, so numbers become visible in
order: a process that has read number n has read all lower ones. Processes read new rows four times a second.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import structlog
from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from auth.tables import change_counter, changes
from storage.errors import DatabaseUnavailable
from storage.transactions import reading

POLL_S = 0.25
_BATCH = 1000  # changes in one query
_PRUNE_EVERY_S = 60.0
_GAP_S = 1800.0  # without a read; rows are removed an hour after the change at the earliest
# Built once: building it takes longer than the query.
_READ_BATCH = select(changes).where(changes.c.seq > bindparam("seen")).order_by(changes.c.seq).limit(_BATCH)

log = structlog.get_logger("atalaya.changes")

OnChange = Callable[[str], None]
OnGap = Callable[[], None]


async def announce(connection: AsyncConnection, *targets: str, revoked: bool, expires_at: datetime) -> None:
    """Announce changes, in the transaction that makes them.

    A target is a kind and an id ("sid:…", "jti:…", "client:…", "user:…", "key:…", "subject:…"). If `revoked`, every
    process rejects credentials that name one of the targets until `expires_at`, by which time they have expired;
    otherwise every process verifies them again, and no longer rejects them.
    """
    if not targets:
        return
    increment = update(change_counter).values(seq=change_counter.c.seq + len(targets)).returning(change_counter.c.seq)
    last = (await connection.execute(increment)).scalar_one()
    common = {"revoked": int(revoked), "expires_at": expires_at}
    numbered = enumerate(targets, last - len(targets) + 1)
    await connection.execute(insert(changes), [{"seq": seq, "target": target, **common} for seq, target in numbered])


class ChangeFeed:
    """This process's copy of the revocations, which stays in use while the database is unavailable.

    After a pause, no credential is accepted until `ensure_current` has read the missed changes. A read that began
    before the pause does not end it.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._seen = 0
        self._revoked: dict[str, datetime] = {}
        self._listeners: list[OnChange] = []
        self._gap_listeners: list[OnGap] = []
        self._read_at = time.monotonic()
        self._pruned_at = time.monotonic()
        self._pauses = 0
        self._pauses_read = 0  # how many pauses have ended, with all missed changes read
        self._failure: type[Exception] | None = None  # the error of the last read by `follow`, if it failed
        self._preparations: list[Callable[[], Awaitable[None]]] = []
        self._prepared = True
        self._resumption: asyncio.Task[None] | None = None

    @property
    def version(self) -> int:
        """A number that increases with each change that this process reads."""
        return self._seen

    @property
    def age_s(self) -> float:
        """Seconds since the last successful read; 0 for a paused feed that has not failed."""
        return 0.0 if self._paused and self._failure is None else time.monotonic() - self._read_at

    def subscribe(self, listener: OnChange) -> None:
        """Call `listener` with the target of every change from now on."""
        self._listeners.append(listener)

    def subscribe_to_gaps(self, listener: OnGap) -> None:
        """Call `listener` after a read that may have missed changes: their rows may have expired since the last read.

        That is the first read after a pause, and after half an hour without a successful read.
        """
        self._gap_listeners.append(listener)

    def is_revoked(self, target: str) -> bool:
        return target in self._revoked

    async def catch_up(self) -> None:
        """Read the new changes. Raises DatabaseUnavailable."""
        await self._read(self._pauses)

    async def catch_up_after_commit(self) -> None:
        """Read a change that this process has just committed, so that its next request is subject to it.

        An unavailable database is not an error here: the change is committed, and `follow` reads it later.
        """
        try:
            await self.catch_up()
        except DatabaseUnavailable as error:
            self._report(error)

    async def _read(self, pauses: int) -> None:
        """Read the new changes. This ends the first `pauses` pauses, but none that began later."""
        has_gap = self._pauses_read < pauses or time.monotonic() - self._read_at > _GAP_S
        while await self._read_batch() == _BATCH:
            pass
        if has_gap:
            for listener in self._gap_listeners:
                listener()
        self._pauses_read = max(self._pauses_read, pauses)
        self._read_at = time.monotonic()
        if self._read_at - self._pruned_at > _PRUNE_EVERY_S:
            self._pruned_at, now = self._read_at, datetime.now(UTC)
            self._revoked = {target: until for target, until in self._revoked.items() if until > now}

    async def _read_batch(self) -> int:
        async with reading(self._engine) as connection:
            rows = (await connection.execute(_READ_BATCH, {"seen": self._seen})).all()
        now = datetime.now(UTC)
        for row in rows:
            if row.seq <= self._seen:  # read meanwhile by another task, which may have read newer rows as well
                continue
            self._seen = row.seq
            if row.revoked and row.expires_at > now:
                self._revoked[row.target] = row.expires_at
            else:
                self._revoked.pop(row.target, None)
            for listener in self._listeners:
                listener(row.target)
        return len(rows)

    def pause(self) -> None:
        """Stop relying on the state, which may become outdated, until the missed changes are read."""
        self._pauses += 1
        self._prepared = False

    def before_resuming(self, prepare: Callable[[], Awaitable[None]]) -> None:
        """Await `prepare` once after each pause, before the changes are read."""
        self._preparations.append(prepare)

    async def ensure_current(self) -> None:
        """Read the changes missed during a pause; all callers share one read. Raises DatabaseUnavailable."""
        while self._paused:
            await self._resume()

    async def follow(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Catch up four times a second until cancelled; `sleep` may take longer while there are no requests."""
        while True:
            await sleep(POLL_S)
            try:
                await (self._resume() if self._paused else self.catch_up())
            except Exception as error:  # after any error, the next attempt may succeed
                self._report(error)
            else:
                self._failure = None

    @property
    def _paused(self) -> bool:
        return self._pauses_read < self._pauses

    async def _resume(self) -> None:
        """Read the changes missed during all pauses so far. A pause that begins during the read continues."""
        if self._resumption is None or self._resumption.done():
            self._resumption = asyncio.create_task(self._prepare_and_read(self._pauses))
        await asyncio.shield(self._resumption)

    async def _prepare_and_read(self, pauses: int) -> None:
        if not self._prepared:
            self._prepared = True
            for prepare in self._preparations:
                await prepare()
        await self._read(pauses)

    def _report(self, error: Exception) -> None:
        """Log the failure, unless the previous read failed in the same way."""
        if type(error) is self._failure:
            return
        self._failure = type(error)
        policy = _describe_policy(paused=self._paused)
        if isinstance(error, DatabaseUnavailable):
            log.warning("revocations_unreachable", policy=policy)
        else:
            log.error("revocations_not_read", policy=policy, exc_info=error)


def _describe_policy(*, paused: bool) -> str:
    return "credentials are rejected until they are read" if paused else "the last known state stays in use"
