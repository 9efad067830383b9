"""Pruning and erasing, including while a ledger is writing."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import event, select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from api.prediction.quotas import QuotaChargeRecorder
from api.services.recording import open_journal
from api.settings import Settings
from auth.quotas.meter import UsageMeter
from monitoring.chains.signing import Signer
from monitoring.chains.timestamps import format_timestamp
from monitoring.errors import LedgerInUse
from monitoring.ledger import transactions
from monitoring.ledger.ledger import Ledger, LedgerState
from monitoring.ledger.tables import ledger_entries, ledger_erased_subjects
from monitoring.ledger.upkeep import pruning
from monitoring.ledger.upkeep.erasure import Eraser
from monitoring.ledger.upkeep.pruning import Pruner
from storage.engine import open_blocking_engine
from storage.transactions import WRITING
from tests.monitoring.ledger.environment import build_facts
from tests.monitoring.ledger.ledgers import (
    KEY,
    LONG_AGO,
    NOW,
    fill_ledger,
    open_database,
    verify_intact,
)
from tests.support.polling import PATIENCE_S, wait_until

# Prunes or erases until it is killed, and prints a line after each transaction.
PROGRAM = """
import sys
from datetime import UTC, datetime
from storage.engine import open_blocking_engine
from storage.transactions import WRITING
from monitoring.ledger.upkeep import erasure, pruning
from monitoring.chains.signing import Signer
action, url, key, moment = sys.argv[1:]
erasure.CHUNK = pruning.CHUNK = 20
arguments = open_blocking_engine(url).execution_options(**WRITING), Signer(key), datetime.now(UTC)
if action == "prune":
    chunks = pruning.Pruner(*arguments).prune(datetime.fromisoformat(moment))
else:
    chunks = erasure.Eraser(*arguments).erase("ana")
for chunk in chunks:
    print(chunk, flush=True)
"""


OTHERS = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
"""


def test_pruning_keeps_newer_entries(url: str) -> None:
    """Older entries of every chain are deleted and replaced by signed stumps; the rest and later entries verify."""
    fill_ledger(url, 1500, LONG_AGO)
    fill_ledger(url, 3, LONG_AGO)
    fill_ledger(url, 5, NOW)
    with open_database(url) as engine:
        pruner = Pruner(engine, Signer(KEY), NOW)
        before = NOW - timedelta(days=30)
        assert pruner.count(before) == 1503
        assert sum(pruner.prune(before)) == 1503
        assert sum(pruner.prune(before)) == 0
    report = verify_intact(url)
    assert (report.entries, report.writers) == (5, 3)
    fill_ledger(url, 2, NOW)
    assert verify_intact(url).entries == 7


def test_pruning_deletes_unneeded_checkpoints(url: str) -> None:
    """Old checkpoints are deleted, except the newest and those that are the last to name an existing entry."""
    fill_ledger(url, 3, LONG_AGO)
    fill_ledger(url, 3, LONG_AGO)
    assert verify_intact(url).checkpoints == 4
    with open_database(url) as engine:
        assert sum(Pruner(engine, Signer(KEY), NOW).prune(LONG_AGO)) == 0
        assert verify_intact(url).checkpoints >= 2
        assert sum(Pruner(engine, Signer(KEY), NOW).prune(NOW)) == 6
    assert verify_intact(url).checkpoints == 1


def test_pruning_forgets_older_erasures(url: str) -> None:
    """The time of an erasure is kept until pruning has passed it."""
    fill_ledger(url, 2, NOW)
    with open_database(url) as engine:
        for principal, at in (("ana", LONG_AGO), ("bob", NOW)):
            list(Eraser(engine, Signer(KEY), at).erase(principal))
        list(Pruner(engine, Signer(KEY), NOW).prune(NOW))
        with engine.begin() as connection:
            assert connection.execute(select(ledger_erased_subjects.c.at)).scalars().all() == [format_timestamp(NOW)]


def test_erasing_deletes_the_payloads_of_one_principal(url: str) -> None:
    """Every payload of the principal is deleted, all others are kept, and the chain verifies."""
    fill_ledger(url, 1100, NOW)
    with open_database(url) as engine:
        eraser = Eraser(engine, Signer(KEY), NOW)
        assert eraser.count("ana") == 550
        assert sum(eraser.erase("ana")) == 550
        assert eraser.count("ana") == 0
        assert eraser.count("bob") == 550
        assert sum(eraser.erase("ana")) == 0
    report = verify_intact(url)
    assert (report.entries, report.erased) == (1100, 550)


def disable_secure_delete(connection: Any, _: object) -> None:
    """Apply the default of many SQLite builds: deleted content is not overwritten."""
    connection.execute("PRAGMA secure_delete = OFF")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_erased_text_is_not_in_the_files(tmp_path: Path, url: str) -> None:
    """SQLite's files contain nothing of an erased document."""
    fill_ledger(url, 300, NOW, "zebedee bob")
    with open_database(url) as blocking:
        event.listen(blocking, "connect", disable_secure_delete, insert=True)
        assert sum(Eraser(blocking, Signer(KEY), NOW).erase("zebedee")) == 150
        # While the database is open: closing it deletes the write-ahead log.
        content = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
    assert b"zebedee" not in content
    assert b"bob" in content


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_pruned_text_is_not_in_the_files(tmp_path: Path, url: str) -> None:
    """SQLite's files contain nothing of a pruned document, which a later erasure could not reach."""
    fill_ledger(url, 300, LONG_AGO, "zebedee bob")
    with open_database(url) as blocking:
        event.listen(blocking, "connect", disable_secure_delete, insert=True)
        assert sum(Pruner(blocking, Signer(KEY), NOW).prune(NOW)) == 300
        content = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
    assert b"zebedee" not in content


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_reader_that_keeps_erased_text_is_reported(url: str) -> None:
    """While a reader holds an older snapshot, SQLite's WAL keeps the text, and erasing raises LedgerInUse."""
    fill_ledger(url, 30, NOW, "zebedee bob")
    reader, blocking = open_blocking_engine(url), open_blocking_engine(url, 1)
    eraser = Eraser(blocking.execution_options(**WRITING), Signer(KEY), NOW)
    with reader.begin() as connection:
        assert connection.execute(select(ledger_entries.c.id)).all()
        with pytest.raises(LedgerInUse):
            list(eraser.erase("zebedee"))
    assert list(eraser.erase("zebedee")) == []
    reader.dispose()
    blocking.dispose()


def test_concurrent_runs_take_turns(url: str) -> None:
    """Several concurrent runs of pruning and erasing complete the work and leave a ledger that verifies."""
    fill_ledger(url, 1500, LONG_AGO)
    fill_ledger(url, 1500, NOW)

    def erase() -> int:
        with open_database(url) as engine:
            return sum(Eraser(engine, Signer(KEY), NOW).erase("ana"))

    def prune() -> int:
        with open_database(url) as engine:
            return sum(Pruner(engine, Signer(KEY), NOW).prune(NOW))

    with ThreadPoolExecutor(6) as pool:
        counts = list(pool.map(lambda act: act(), [erase, prune] * 3))
    assert sum(counts[1::2]) == 1500
    assert 750 <= sum(counts[0::2]) <= 1500
    report = verify_intact(url)
    assert (report.entries, report.erased) == (1500, 750)


def test_checkpoints_pruned_by_another_run_are_no_damage(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints that another run prunes while they are being read are not reported as changed."""
    for _ in range(8):
        fill_ledger(url, 1, LONG_AGO)
    monkeypatch.setattr(pruning, "CHUNK", 4)
    transactions = 0

    def prune_after_the_first_page(*_: object) -> None:
        nonlocal transactions
        transactions += 1
        if transactions == 2:  # the first looked for more entries of the last chain
            with open_database(url) as other:
                assert sum(Pruner(other, Signer(KEY), NOW).prune(NOW)) == 0

    with open_database(url) as engine:
        chunks = Pruner(engine, Signer(KEY), NOW).prune(NOW)
        assert list(islice(chunks, 8)) == [1] * 8
        assert verify_intact(url).checkpoints == 16
        event.listen(engine, "checkin", prune_after_the_first_page)
        assert list(chunks) == []
    assert transactions > 3
    assert verify_intact(url).checkpoints == 1


def count_connections(url: str) -> int:
    """Return how many others are connected to a PostgreSQL database; always 0 for SQLite."""
    if url.startswith("sqlite"):
        return 0
    with open_database(url) as engine, engine.begin() as connection:
        return int(connection.execute(text(OTHERS)).scalar_one())


@pytest.mark.parametrize("action", ["prune", "erase"])
def test_a_killed_run_can_be_repeated(url: str, action: str) -> None:
    """After a killed run the ledger verifies, and the next run completes the work."""
    fill_ledger(url, 400, LONG_AGO)
    command = [sys.executable, "-c", PROGRAM, action, url, KEY, NOW.isoformat()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for _ in range(3):
            assert process.stdout.readline() == "20\n"
        process.send_signal(signal.SIGKILL)
    wait_until(lambda: count_connections(url) == 0)  # PostgreSQL may still commit what it has received
    report = verify_intact(url)
    if action == "prune":
        assert report.entries <= 340  # perhaps none: the signal may arrive when everything is done
        with open_database(url) as engine:
            assert sum(Pruner(engine, Signer(KEY), NOW).prune(NOW)) == report.entries
    else:
        assert 60 <= report.erased <= 200
        with open_database(url) as engine:
            assert sum(Eraser(engine, Signer(KEY), NOW).erase("ana")) == 200 - report.erased
    verify_intact(url)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_other_writers_get_a_turn(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pruning pauses after each transaction on SQLite, and holds no lock during the pause."""
    fill_ledger(url, 2500, LONG_AGO)
    other = open_blocking_engine(url, 0).execution_options(**WRITING)
    pauses = list[float]()

    def write_during_the_pause(duration: float) -> None:
        pauses.append(duration)
        with other.begin():
            pass

    monkeypatch.setattr(transactions, "time", SimpleNamespace(monotonic=time.monotonic, sleep=write_during_the_pause))
    with open_database(url) as blocking:
        assert sum(Pruner(blocking, Signer(KEY), NOW).prune(NOW)) == 2500
    other.dispose()
    assert pauses.count(transactions.SQLITE_PAUSE_S) >= 3


async def test_upkeep_beside_a_ledger_that_writes(url: str, engine: AsyncEngine, tmp_path: Path) -> None:
    """Entries that are recorded during pruning and erasing are all in the database, and verify."""
    await asyncio.to_thread(fill_ledger, url, 3000, LONG_AGO)
    options = {"signing_key": KEY, "spool_folder": tmp_path / "spool"}
    journal = open_journal(Settings(database_url=url, ledger=options), QuotaChargeRecorder(UsageMeter(engine)))

    def run_upkeep() -> None:
        with open_database(url) as blocking:
            assert sum(Eraser(blocking, Signer(KEY), NOW).erase("ana")) >= 1500
            assert sum(Pruner(blocking, Signer(KEY), NOW).prune(NOW)) == 3000

    writing = asyncio.Event()

    def on_state(state: LedgerState, _: int) -> None:
        (writing.set if state is LedgerState.WRITING else writing.clear)()

    async with Ledger(journal, on_state, lambda _: None) as ledger:
        upkeep = asyncio.create_task(asyncio.to_thread(run_upkeep))
        ids = []
        while not upkeep.done():
            ids.append(await ledger.record(build_facts("bob"), None))
        await upkeep
        # On a slow machine the ledger may wait too long for SQLite's lock; it then spools until it gets the lock.
        async with asyncio.timeout(PATIENCE_S):
            await writing.wait()
    with open_database(url) as blocking, blocking.begin() as connection:
        assert list(connection.execute(select(ledger_entries.c.id).order_by(ledger_entries.c.id)).scalars()) == ids
    verify_intact(url)
