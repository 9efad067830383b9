"""Commits batches to the database or the spool, and delivers the spool to the database."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

import structlog

from monitoring.chains.ids import new_id
from monitoring.errors import LedgerFull, LedgerUnavailable
from monitoring.ledger.batches import Batch, CommitResult, PendingEntry
from monitoring.ledger.chain import Chain
from monitoring.ledger.charges import ChargeRecorder
from monitoring.ledger.spool.entries import SpooledEntry, decode_spooled
from monitoring.ledger.spool.folder import SpoolFolder
from monitoring.ledger.spool.queue import Spool, SpoolFull
from monitoring.ledger.writing.store import ChainConflict, LedgerStore
from storage.driver import DriverConnection

_DELIVERY_SIZE = 500

log = structlog.get_logger("atalaya.ledger")


class Journal:
    """Not thread-safe, except for `check_connection` and `abort_transaction`.

    Unless `enabled`, no entries are written, only charges.
    """

    def __init__(
        self, store: LedgerStore, charge_recorder: ChargeRecorder, folder: SpoolFolder, *, enabled: bool = True
    ) -> None:
        self._store = store
        self._charge_recorder = charge_recorder
        self._folder = folder
        self.enabled = enabled
        self._spools: list[Spool] = []  # the last one is this process's own
        self.spooling = False
        self.full = False
        self.check_connection = store.check_connection
        self.abort_transaction = store.abort_transaction
        self.write_checkpoint = store.write_checkpoint
        self.close_connection = store.close
        self.use_signer = store.use_signer

    @property
    def spooled(self) -> int:
        """How many entries wait to be delivered."""
        return sum(spool.waiting for spool in self._spools)

    def open(self) -> str:
        """Begin a chain; return the greatest id so far, or "". Raises LedgerUnavailable, OSError."""
        ids = [self._begin_chain()]
        if self.enabled:
            self._spools = self._folder.open(self._chain.writer)
            last_texts = [spool.read_last() for spool in self._spools]
            ids += [decode_spooled(text).linked.entry.id for text in last_texts if text is not None]
        return max(ids)

    def commit(self, pending: Sequence[PendingEntry]) -> Sequence[CommitResult]:
        """Make the entries durable in one transaction."""
        batch = Batch(pending)
        if not self.spooling:
            try:
                self._commit_to_database(batch)
            except LedgerUnavailable as error:
                if not self.enabled:
                    return [error] * len(pending)
                self.spooling = True
            else:
                return batch.results
        return self._commit_to_spool(batch)

    def deliver(self) -> None:
        """Move the oldest part of the spools to the database, or end spooling if they are empty.

        Raises LedgerUnavailable.
        """
        spool = next((spool for spool in self._spools if spool.waiting), None)
        if spool is None:
            self._end_spooling()
            return
        entries = _take_one_chain(decode_spooled(text) for text in spool.read_first(_DELIVERY_SIZE))
        try:
            self._deliver_to_own_chain(entries)
        except ChainConflict:
            log.error(
                "ledger_chain_conflict",
                writer=entries[0].linked.entry.writer,
                policy="the process continues in a new chain",
            )
            self._deliver_to_new_chain(entries)
        spool.remove_first(len(entries))  # if a crash prevents this, they are delivered again, which is detected
        if not spool.waiting and spool is not self._spools[-1]:
            self._spools.remove(spool)
            spool.close()

    def close(self) -> None:
        for spool in self._spools:
            spool.close()
        self._store.close()

    def _begin_chain(self) -> str:
        self._chain = Chain(new_id())
        return self._store.open_chain(self._chain.writer) if self.enabled else ""

    def _commit_to_database(self, batch: Batch) -> None:
        try:
            self._append(batch)
        except ChainConflict:
            # Either the database was restored from a backup, or it committed a batch, but the acknowledgement was lost
            # and the spool was full.
            log.error("ledger_chain_conflict", writer=self._chain.writer, policy="the process continues in a new chain")
            batch.reset()
            self._begin_chain()
            self._append(batch)

    def _append(self, batch: Batch) -> None:
        charges = batch.charges
        with self._store.batch_transaction() as connection:
            batch.apply_refusals(self._charge_recorder.charge(connection, charges) if charges else [])
            if self.enabled:
                batch.linked = self._chain.link(batch.drafts)
                self._store.append(connection, batch.linked, self._chain)
        if charges:
            self._charge_recorder.confirm()
        self._chain.advance(batch.linked)

    def _commit_to_spool(self, batch: Batch) -> Sequence[CommitResult]:
        # Entries that were sent to the database stay as they are: it may have committed them.
        linked = batch.linked or self._chain.link(batch.drafts)
        spooled = [SpooledEntry(*pair) for pair in zip(linked, batch.optional_charges, strict=True)]
        try:
            self._spools[-1].append([entry.encode() for entry in spooled])
        except SpoolFull:
            self.full = True
            return [LedgerFull()] * len(linked)
        self.full = False
        self._chain.advance(linked)
        self._charge_recorder.charge_later(batch.charges)
        return batch.results

    def _end_spooling(self) -> None:
        """Write to the database again.

        Raises LedgerUnavailable if it is not writable, or if the disk that it shares with the spool is full.
        """
        if self.full and self._folder.shares_disk() and not self._spools[-1].has_capacity():
            raise LedgerUnavailable
        self._store.check_writable(self._chain.writer)
        self.spooling = self.full = False

    def _deliver_to_own_chain(self, entries: Sequence[SpooledEntry]) -> None:
        """Append the entries to the chain in which they were linked. Raises ChainConflict."""
        with self._store.delivery_transaction() as connection:
            missing, chain = self._store.find_undelivered(connection, [entry.linked for entry in entries])
            if missing:
                driver = DriverConnection(connection)
                self._charge_deferred(driver, entries[-len(missing) :])
                self._store.append(driver, missing, chain)
                self._store.erase_delivered(connection, missing)
        if missing:
            self._charge_recorder.confirm()

    def _deliver_to_new_chain(self, entries: Sequence[SpooledEntry]) -> None:
        chain = Chain(new_id())
        self._store.open_chain(chain.writer)
        with self._store.delivery_transaction() as connection:
            recorded = self._store.find_recorded_ids(connection, [entry.linked.entry.id for entry in entries])
            missing = [entry for entry in entries if entry.linked.entry.id not in recorded]
            driver = DriverConnection(connection)
            self._charge_deferred(driver, missing)
            relinked = chain.relink([entry.linked for entry in missing])
            self._store.append(driver, relinked, chain)
            self._store.erase_delivered(connection, relinked)
        self._charge_recorder.confirm()

    def _charge_deferred(self, connection: DriverConnection, entries: Sequence[SpooledEntry]) -> None:
        charges = [entry.charge for entry in entries if entry.charge is not None]
        self._charge_recorder.charge_deferred(connection, charges)


def _take_one_chain(entries: Iterable[SpooledEntry]) -> Sequence[SpooledEntry]:
    """Return the leading entries that belong to the same chain."""
    _, group = next(groupby(entries, lambda entry: entry.linked.entry.writer))
    return list(group)
