"""Checkpoints rely on signatures and on what the processes remember, not on the unsigned `claimed` of heads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, delete, select, text, update

from monitoring.chains.ids import new_id
from monitoring.chains.signing import Signer, Verifier, new_private_key
from monitoring.chains.timestamps import format_timestamp
from monitoring.ledger.chain import Chain
from monitoring.ledger.entries import EntryDraft
from monitoring.ledger.records import read_checkpoints, read_records
from monitoring.ledger.tables import ledger_checkpoints, ledger_entries, ledger_heads, ledger_payloads
from monitoring.ledger.upkeep.pruning import Pruner
from monitoring.ledger.verification.stream import verify
from monitoring.ledger.writing.store import LedgerStore
from tests.monitoring.ledger.environment import build_facts
from tests.monitoring.ledger.ledgers import KEY, NOW, open_database, verify_database, verify_intact

FAR = 10**9
KEEP_CLAIMED_HIGH = {
    "sqlite": (
        "CREATE TRIGGER high AFTER UPDATE ON ledger_heads WHEN NEW.claimed < 1000 "
        "BEGIN UPDATE ledger_heads SET claimed = 1000; END",
    ),
    "postgresql": (
        "CREATE FUNCTION high() RETURNS trigger AS 'BEGIN NEW.claimed := 1000; RETURN NEW; END' LANGUAGE plpgsql",
        "CREATE TRIGGER high BEFORE UPDATE ON ledger_heads FOR EACH ROW EXECUTE FUNCTION high()",
    ),
}


class Process:
    """One process of the gateway; `contradictions` counts the contradictions that it has reported."""

    def __init__(self, engine: Engine, key: str = KEY) -> None:
        self.contradictions = 0
        self.store = LedgerStore(engine, Signer(key), lambda: NOW, self._count)
        self.chain = Chain(new_id())
        self.store.open_chain(self.chain.writer)

    def _count(self) -> None:
        self.contradictions += 1

    def record(self, count: int) -> None:
        at = format_timestamp(NOW)
        linked = self.chain.link([EntryDraft(new_id(), at, build_facts("ana")) for _ in range(count)])
        with self.store.batch_transaction() as connection:
            self.store.append(connection, linked, self.chain)
        self.chain.advance(linked)


class Database:
    """A ledger's database, and the changes that someone with write access makes to it."""

    def __init__(self, url: str, engine: Engine) -> None:
        self.url = url
        self.engine = engine

    def execute(self, *statements: Any) -> None:
        with self.engine.begin() as connection:
            for statement in statements:
                connection.execute(statement)

    def read_head(self, chain: Chain) -> dict[str, Any]:
        with self.engine.begin() as connection:
            selected = select(ledger_heads).where(ledger_heads.c.writer == chain.writer)
            return dict(connection.execute(selected).mappings().one())

    def set_head(self, chain: Chain, **values: Any) -> None:
        self.execute(update(ledger_heads).where(ledger_heads.c.writer == chain.writer).values(**values))

    def cut_back(self, chain: Chain, head: dict[str, Any]) -> None:
        """Restore an earlier signed head with its `claimed`, and delete the later entries."""
        tables = ledger_entries, ledger_payloads
        later = (delete(table).where(table.c.writer == chain.writer, table.c.seq > head["seq"]) for table in tables)
        self.execute(*later)
        self.set_head(chain, **head)

    def read_claims(self, chain: Chain) -> list[int]:
        """Return the entry numbers of the chain that checkpoints name, in order."""
        with self.engine.begin() as connection:
            lines = [line for checkpoint in read_checkpoints(connection) for line in checkpoint.heads.split("\n")]
        return [int(line.split(" ")[1]) for line in lines if line.startswith(chain.writer)]


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    with open_database(url) as blocking:
        yield Database(url, blocking)


@contextmanager
def running(database: Database, count: int = 1, key: str = KEY) -> Iterator[list[Process]]:
    """Run processes that end without a final checkpoint, as if they were killed."""
    with ExitStack() as stack:
        processes = []
        for _ in range(count):
            engine = stack.enter_context(open_database(database.url))
            processes.append(Process(engine, key))
            stack.callback(processes[-1].store.close)
        yield processes


def test_a_claim_set_high_does_not_hide_a_chain(database: Database) -> None:
    """Checkpoints name a chain even if its `claimed` was set high, so that a later cut of its end is found."""
    with running(database) as (process,):
        process.record(3)
        process.store.write_checkpoint()
        kept = database.read_head(process.chain)
        database.set_head(process.chain, claimed=FAR)
        for _ in range(3):
            process.record(5)
            process.store.write_checkpoint()
        assert process.contradictions == 1
        assert database.read_claims(process.chain) == [0, 3, 8, 13, 18]
        database.cut_back(process.chain, kept)
    missing = f"Entry 18 of {process.chain.writer}, which a checkpoint names, is missing."
    assert missing in verify_database(database.url).problems


def test_a_claim_that_is_kept_high_is_reported_each_time(database: Database) -> None:
    """A trigger that sets `claimed` high with every update hides nothing, and each checkpoint reports it."""
    with running(database) as (process,):
        database.execute(*(text(statement) for statement in KEEP_CLAIMED_HIGH[database.engine.dialect.name]))
        for _ in range(2):
            process.record(1)
            process.store.write_checkpoint()
        assert process.contradictions == 2
        assert database.read_claims(process.chain) == [0, 1, 2]


@pytest.mark.parametrize("change", [{"signature": "x"}, {"seq": 1}, {"hash": "f" * 64}, {"key": "0" * 16}])
def test_a_destroyed_head_does_not_hide_a_chain(database: Database, change: dict[str, Any]) -> None:
    """A checkpoint names what its own process has written, even if the head in the database was changed."""
    with running(database) as (process,):
        process.record(4)
        intact = database.read_head(process.chain)
        database.set_head(process.chain, **change)
        process.store.write_checkpoint()
        process.store.write_checkpoint()
        assert process.contradictions == 1
        assert database.read_claims(process.chain) == [0, 4]
        database.set_head(process.chain, **intact | {"claimed": 4})
    assert verify_intact(database.url).entries == 4


def test_a_removed_head_does_not_hide_a_chain(database: Database) -> None:
    """A checkpoint names what its own process has written, even if the whole chain was removed."""
    with running(database) as (process,):
        process.record(4)
        tables = ledger_heads, ledger_entries, ledger_payloads
        database.execute(*(delete(table).where(table.c.writer == process.chain.writer) for table in tables))
        process.store.write_checkpoint()
    assert verify_database(database.url).problems[0] == (
        f"Entry 4 of {process.chain.writer}, which a checkpoint names, is missing."
    )


def test_a_removed_checkpoint_is_reported_and_replaced(database: Database) -> None:
    """When the newest checkpoint is removed, the next one names its heads again, and the removal is reported."""
    with running(database) as (process,):
        process.record(4)
        process.store.write_checkpoint()
        database.execute(delete(ledger_checkpoints).where(ledger_checkpoints.c.number == 2))
        process.store.write_checkpoint()
        assert process.contradictions == 2  # the missing checkpoint, and the claim that it supported
        assert database.read_claims(process.chain) == [0, 4]
    assert verify_intact(database.url).checkpoints == 2


def test_another_process_names_a_killed_one(database: Database) -> None:
    """A checkpoint of another process names the chain of a killed one, whatever its `claimed` was set to."""
    with running(database, 2) as (first, second):
        first.record(3)
        database.set_head(first.chain, claimed=FAR)
        second.store.write_checkpoint()
        assert (first.contradictions, second.contradictions) == (0, 1)
        first.store.write_checkpoint()
        second.record(2)
        first.store.write_checkpoint()
        assert (first.contradictions, second.contradictions) == (0, 1)
        assert database.read_claims(first.chain) == [0, 3]
        assert database.read_claims(second.chain) == [0, 2]
    assert verify_intact(database.url).entries == 5


def test_a_claim_is_not_trusted_after_a_restart(database: Database) -> None:
    """A new process names the chain of an earlier one if no signed checkpoint supports that chain's `claimed`."""
    with running(database) as (ended,):
        ended.record(3)
    database.set_head(ended.chain, claimed=3)
    with running(database) as (next_one,):
        assert next_one.contradictions == 1
        assert database.read_claims(ended.chain) == [0, 3]
    assert verify_intact(database.url).entries == 3


def test_a_claim_set_low_names_no_head_twice(database: Database) -> None:
    """An ended chain whose `claimed` was lowered is not named again, however many checkpoints ago it was named."""
    with running(database) as (ended,):
        ended.record(3)
        ended.store.write_checkpoint()
    with running(database) as (busy,):
        for _ in range(260):
            busy.record(1)
            busy.store.write_checkpoint()
        assert busy.contradictions == 0
    database.set_head(ended.chain, claimed=-1)
    with running(database) as (next_one,):
        assert next_one.contradictions == 1
    assert database.read_claims(ended.chain) == [0, 3]
    assert verify_intact(database.url).entries == 263


def test_honest_operation_reports_nothing(database: Database) -> None:
    """Processes that take turns, end, start, prune and change the key report no contradictions."""
    with running(database, 3) as processes:
        for turn in range(3):
            for process in processes:
                process.record(1 + turn)
                processes[turn].store.write_checkpoint()
        chains = [process.chain for process in processes]
    with running(database) as successors:
        with open_database(database.url) as engine:
            later = NOW + timedelta(days=1)
            assert sum(Pruner(engine, Signer(KEY), later).prune(later)) == 18
        successors[0].store.write_checkpoint()
    with running(database, 2) as after_pruning, running(database, 1, new_private_key()) as other_key:
        for process in (*after_pruning, *other_key):
            process.record(2)
            process.store.write_checkpoint()
    assert [process.contradictions for process in (*processes, *successors, *after_pruning, *other_key)] == [0] * 7
    assert all(database.read_claims(chain) == [] for chain in chains)
    problems = verify_database(database.url).problems
    assert all("is signed by the unknown key" in problem for problem in problems)


def test_a_key_that_another_process_got_first_contradicts_nothing(database: Database) -> None:
    """Once a process has a new key, it reads again what it skipped before, and reports no contradiction."""
    new = Signer(new_private_key())
    with running(database, 2) as (early, late):
        early.record(1)
        early.store.write_checkpoint()
        early.store.use_signer(new)
        early.record(2)
        early.store.write_checkpoint()
        late.record(1)
        late.store.write_checkpoint()
        late.store.use_signer(new)
        late.record(1)
        late.store.write_checkpoint()
        early.store.write_checkpoint()
        assert (early.contradictions, late.contradictions) == (0, 0)
        assert database.read_claims(early.chain) == [0, 1, 3]
        assert database.read_claims(late.chain) == [0, 1, 2]
    with database.engine.begin() as connection:
        verifier = Verifier([Signer(KEY).public_key, new.public_key])
        assert verify(read_records(connection), verifier).problems == []


def test_a_lost_acknowledgement_contradicts_nothing(database: Database) -> None:
    """A checkpoint names entries whose commit was not acknowledged, and no contradiction is reported."""
    with running(database) as (process,):
        linked = process.chain.link([EntryDraft(new_id(), format_timestamp(NOW), build_facts("ana"))])
        with LedgerStore(database.engine, Signer(KEY)).batch_transaction() as connection:
            process.store.append(connection, linked, process.chain)
        process.store.write_checkpoint()
        process.chain.advance(linked)
        process.record(1)
        process.store.write_checkpoint()
        assert process.contradictions == 0
        assert database.read_claims(process.chain) == [0, 1, 2]
    assert verify_intact(database.url).entries == 2
