"""What the ledger's thread does: batches into the database, or into the spool, and from there to the database."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

import structlog
from sqlalchemy import Connection
from uuid_utils import uuid7

from monitoring.errors import LedgerFull, LedgerUnavailable
from monitoring.ledger.chain import Chain
from monitoring.ledger.entries import Draft, Entry, Link, Payload
from monitoring.ledger.spool import Spool, SpoolFull, open_spools
from monitoring.ledger.store import LedgerStore, OutOfStep

_DELIVERED_AT_ONCE = 500

log = structlog.get_logger("atalaya.ledger")

Charge = Mapping[str, Any]  # ready for JSON
Outcome = Exception | None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a charge is not granted, and what the entry says of it."""

    error: Exception
    status: int
    code: str


class ChargeRecorder(Protocol):
    """Who counts what answers cost, in the transactions that record them."""

    def charge(self, connection: Connection, charges: Sequence[Charge]) -> Sequence[Refusal | None]:
        """Count each charge or say why not."""
        ...

    def charge_deferred(self, connection: Connection, charges: Sequence[Charge]) -> None:
        """Count charges of answers that were given while the database was away."""
        ...

    def charge_later(self, charges: Sequence[Charge]) -> None:
        """Remember charges that cannot be counted now."""
        ...


@dataclass(frozen=True, slots=True)
class Wanted:
    """An entry that somebody waits for, and what it costs whom."""

    draft: Draft
    charge: Charge | None


@dataclass(frozen=True, slots=True)
class SpoolPolicy:
    """Where a process may put what it cannot deliver, and how much of it; the `database`'s file, if it has one."""

    folder: Path
    limit_bytes: int
    database: Path | None = None

    def shares_disk(self) -> bool:
        """Whether a disk that is full for the spool is so for the database."""
        with suppress(OSError):
            return self.database is not None and self.database.stat().st_dev == self.folder.stat().st_dev
        return False


class Journal:
    """One thread at a time uses it, but for `reach` and `break_off`. Without `keep` charges alone are written."""

    def __init__(
        self, store: LedgerStore, charge_recorder: ChargeRecorder, policy: SpoolPolicy, *, keep: bool = True
    ) -> None:
        self._store = store
        self._charge_recorder = charge_recorder
        self._policy = policy
        self._keep = keep
        self._spools: list[Spool] = []  # the last one is this process's own
        self.spooling = False
        self.full = False
        self.reach = store.reach
        self.break_off = store.break_off
        self.checkpoint = store.checkpoint

    @property
    def spooled(self) -> int:
        """How many entries wait for their delivery."""
        return sum(spool.waiting for spool in self._spools)

    def open(self) -> str:
        """Begin a chain; returns the greatest id so far, or "". Raises LedgerUnavailable, OSError."""
        greatest = [self._begin_chain()]
        if self._keep:
            self._spools = open_spools(self._policy.folder, self._chain.writer, self._policy.limit_bytes)
            greatest += [_read(text).link.entry.id for spool in self._spools for text in spool.last()]
        return max(greatest)

    def commit(self, wanted: Sequence[Wanted]) -> Sequence[Outcome]:
        """Make the entries durable in one transaction; None for each that is, and whose charge was granted."""
        attempt = _Attempt(wanted)
        if not self.spooling:
            try:
                self._into_database(attempt)
            except LedgerUnavailable as error:
                if not self._keep:
                    return [error] * len(wanted)
                self.spooling = True
            else:
                return attempt.outcomes
        return self._into_spool(attempt)

    def deliver(self) -> None:
        """Bring the oldest part of what was spooled to the database. Raises LedgerUnavailable."""
        spool = next((spool for spool in self._spools if spool.waiting), None)
        if spool is None:
            if self.full and self._policy.shares_disk() and not self._spools[-1].has_capacity():
                raise LedgerUnavailable
            self._store.check_writable(self._chain.writer)
            self.spooling = self.full = False
            return
        items = _of_one_chain(_read(text) for text in spool.first(_DELIVERED_AT_ONCE))
        try:
            self._into_chain(items)
        except OutOfStep:
            log.error("ledger_out_of_step", writer=items[0].link.entry.writer, policy="go on in a new chain")
            self._into_new_chain(items)
        spool.remove_first(len(items))  # what is delivered twice, after a crash, is recognised
        if not spool.waiting and spool is not self._spools[-1]:
            self._spools.remove(spool)
            spool.close()

    def close(self) -> None:
        for spool in self._spools:
            spool.close()
        self._store.close()

    def _begin_chain(self) -> str:
        self._chain = Chain(str(uuid7()))
        return self._store.open_chain(self._chain.writer) if self._keep else ""

    def _into_database(self, attempt: _Attempt) -> None:
        try:
            self._append(attempt)
        except OutOfStep:
            # The database was restored, or took a batch whose answer was lost and that found no room in the spool.
            log.error("ledger_out_of_step", writer=self._chain.writer, policy="go on in a new chain")
            attempt.begin_again()
            self._begin_chain()
            self._append(attempt)

    def _append(self, attempt: _Attempt) -> None:
        with self._store.transaction() as connection:
            attempt.judge(self._charge_recorder.charge(connection, attempt.charges) if attempt.charges else [])
            if self._keep:
                attempt.links = self._chain.links(attempt.drafts)
                self._store.append(connection, attempt.links, self._chain)
        self._chain.advance(attempt.links)

    def _into_spool(self, attempt: _Attempt) -> Sequence[Outcome]:
        # Links that the database was given stay as they are: it may have taken them.
        links = attempt.links or self._chain.links(attempt.drafts)
        try:
            self._spools[-1].append([_written(link, cost) for link, cost in zip(links, attempt.costs, strict=True)])
        except SpoolFull:
            self.full = True
            return [LedgerFull()] * len(links)
        self.full = False
        self._chain.advance(links)
        self._charge_recorder.charge_later(attempt.charges)
        return attempt.outcomes

    def _into_chain(self, items: Sequence[_Spooled]) -> None:
        with self._store.transaction() as connection:
            missing, chain = self._store.undelivered(connection, [item.link for item in items])
            if missing:
                self._charge_deferred(connection, items[-len(missing) :])
                self._store.append(connection, missing, chain)

    def _into_new_chain(self, items: Sequence[_Spooled]) -> None:
        chain = Chain(str(uuid7()))
        self._store.open_chain(chain.writer)
        with self._store.transaction() as connection:
            known = self._store.known(connection, [item.link.entry.id for item in items])
            missing = [item for item in items if item.link.entry.id not in known]
            self._charge_deferred(connection, missing)
            self._store.append(connection, chain.adopt([item.link for item in missing]), chain)

    def _charge_deferred(self, connection: Connection, items: Sequence[_Spooled]) -> None:
        charges = [item.charge for item in items if item.charge is not None]
        if charges:
            self._charge_recorder.charge_deferred(connection, charges)


class _Attempt:
    """A batch on its way; its outcomes, and the links it was given."""

    def __init__(self, wanted: Sequence[Wanted]) -> None:
        self._wanted = wanted
        self.begin_again()

    def begin_again(self) -> None:
        """As if nobody had judged it or given it links."""
        self.drafts = [one.draft for one in self._wanted]
        self.costs = [one.charge for one in self._wanted]
        self.outcomes: list[Outcome] = [None] * len(self._wanted)
        self.links: list[Link] = []

    @property
    def charges(self) -> list[Charge]:
        return [cost for cost in self.costs if cost is not None]

    def judge(self, refusals: Sequence[Refusal | None]) -> None:
        """Whose charge is refused gets another entry, and pays nothing."""
        places = [place for place, cost in enumerate(self.costs) if cost is not None]
        for place, refusal in zip(places, refusals, strict=True):
            if refusal is not None:
                self.drafts[place] = self.drafts[place].refused(refusal.status, refusal.code)
                self.costs[place] = None
                self.outcomes[place] = refusal.error


@dataclass(frozen=True, slots=True)
class _Spooled:
    link: Link
    charge: Charge | None


def _written(link: Link, charge: Charge | None) -> str:
    return json.dumps((astuple(link.entry), astuple(link.payload), charge), separators=(",", ":"))


def _read(text: str) -> _Spooled:
    entry, payload, charge = json.loads(text)
    return _Spooled(Link(Entry(*entry), Payload(*payload)), charge)


def _of_one_chain(items: Iterable[_Spooled]) -> Sequence[_Spooled]:
    """As many as follow each other in the first one's chain."""
    _, group = next(groupby(items, lambda item: item.link.entry.writer))
    return list(group)
