"""Records events from a process that records no requests, such as a command."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from monitoring.chains.ids import MonotonicIds, new_id
from monitoring.chains.timestamps import format_timestamp
from monitoring.ledger.chain import Chain
from monitoring.ledger.entries import EntryDraft
from monitoring.ledger.writing.store import LedgerStore


class EventWriter:
    """Appends entries to a chain of its own, whether or not a gateway is running. Use it as a context manager.

    The first entry begins the chain. Every method raises LedgerUnavailable while the database is unavailable, because
    there is no spool.
    """

    def __init__(self, store: LedgerStore, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._store = store
        self._clock = clock
        self._ids = MonotonicIds(lambda: int(clock().timestamp() * 1000))
        self._chain: Chain | None = None

    def __enter__(self) -> EventWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Write a checkpoint that names the last entry. After an error, that is left to a gateway's next checkpoint."""
        try:
            if error is None and self._chain is not None:
                self._store.write_checkpoint()
        finally:
            self._store.close()

    def record(self, facts: dict[str, Any]) -> str:
        """Append an entry, and return its id once it is durable."""
        if self._chain is None:
            self._chain = self._begin_chain()
        draft = EntryDraft(self._ids.new(), format_timestamp(self._clock()), facts)
        linked = self._chain.link([draft])
        with self._store.batch_transaction() as connection:
            self._store.append(connection, linked, self._chain)
        self._chain.advance(linked)
        return draft.id

    def _begin_chain(self) -> Chain:
        chain = Chain(new_id())
        greatest = self._store.open_chain(chain.writer)
        if greatest:
            self._ids.start_after(greatest)
        return chain
