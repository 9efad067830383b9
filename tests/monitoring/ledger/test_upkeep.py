"""Retention and erasure, on both databases, beside a ledger that writes."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event, select
from sqlalchemy.ext.asyncio import AsyncEngine

from api.prediction.quotas import QuotaChargeRecorder
from api.services.recording import open_journal
from api.settings import Settings
from auth.quotas.meter import UsageMeter
from monitoring.chains.signing import Signer
from monitoring.errors import LedgerInUse
from monitoring.ledger import retention
from monitoring.ledger.entries import written_time
from monitoring.ledger.erasure import Eraser
from monitoring.ledger.ledger import Ledger
from monitoring.ledger.retention import Pruning
from monitoring.ledger.tables import ledger_entries, ledger_heads
from storage.engine import open_blocking_engine
from storage.transactions import WRITING
from tests.monitoring.ledger.ledgers import KEY, LONG_AGO, NOW, checked, facts, fill, opened

# Prunes or erases until it is killed, and says when each transaction is done.
PROGRAM = """
import sys
from datetime import UTC, datetime
from storage.engine import open_blocking_engine
from storage.transactions import WRITING
from monitoring.ledger import erasure, retention
from monitoring.chains.signing import Signer
what, url, key, moment = sys.argv[1:]
erasure.CHUNK = retention.CHUNK = 20
tools = open_blocking_engine(url).execution_options(**WRITING), Signer(key), datetime.now(UTC)
if what == "prune":
    parts = retention.Pruning(*tools).prune(datetime.fromisoformat(moment))
else:
    parts = erasure.Eraser(*tools).erase("ana")
for part in parts:
    print(part, flush=True)
"""


@pytest.fixture
def url(engine: AsyncEngine, database_url: str) -> str:
    """A database with the tables."""
    assert engine.dialect.name in database_url
    return database_url


def test_pruning_leaves_what_is_not_old(url: str) -> None:
    """What is older goes, in every chain; the rest still verifies, behind signed stumps, and so do later entries."""
    fill(url, 1500, LONG_AGO)
    fill(url, 3, LONG_AGO)
    fill(url, 5, NOW)
    with opened(url) as engine:
        pruning = Pruning(engine, Signer(KEY), NOW)
        before = NOW - timedelta(days=30)
        assert pruning.count(before) == 1503
        assert sum(pruning.prune(before)) == 1503
        assert sum(pruning.prune(before)) == 0
    finding = checked(url)
    assert (finding.entries, finding.writers) == (5, 3)
    fill(url, 2, NOW)
    assert checked(url).entries == 7


def test_checkpoints_that_prove_nothing_any_more_go_too(url: str) -> None:
    """Old checkpoints are removed, but not the newest, and none that is the last to name an entry that is kept."""
    fill(url, 3, LONG_AGO)
    fill(url, 3, LONG_AGO)
    assert checked(url).checkpoints == 4
    with opened(url) as engine:
        assert sum(Pruning(engine, Signer(KEY), NOW).prune(LONG_AGO)) == 0
        assert checked(url).checkpoints >= 2
        assert sum(Pruning(engine, Signer(KEY), NOW).prune(NOW)) == 6
    assert checked(url).checkpoints == 1


def test_erasing_forgets_one_person(url: str) -> None:
    """Every payload of the person is gone, everybody else's is there, and the chain verifies with both."""
    fill(url, 1100, NOW)
    with opened(url) as engine:
        eraser = Eraser(engine, Signer(KEY), NOW)
        assert eraser.count("ana") == 550
        assert sum(eraser.erase("ana")) == 550
        assert eraser.count("ana") == 0
        assert eraser.count("bob") == 550
        assert sum(eraser.erase("ana")) == 0
    finding = checked(url)
    assert (finding.entries, finding.erased) == (1100, 550)


def _off(connection: Any, _: object) -> None:
    """Many builds of SQLite do not overwrite what is deleted unless they are told to."""
    connection.execute("PRAGMA secure_delete = OFF")


def test_erased_text_is_not_in_the_files(tmp_path: Path, engine: AsyncEngine, database_url: str) -> None:
    """On SQLite nothing of an erased document is left in the database's files."""
    if engine.dialect.name != "sqlite":
        return
    fill(database_url, 300, NOW, "zebedee bob")
    with opened(database_url) as blocking:
        event.listen(blocking, "connect", _off, insert=True)
        assert sum(Eraser(blocking, Signer(KEY), NOW).erase("zebedee")) == 150
    left = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
    assert b"zebedee" not in left
    assert b"bob" in left


def test_pruned_text_is_not_in_the_files(tmp_path: Path, engine: AsyncEngine, database_url: str) -> None:
    """On SQLite nothing of a pruned document is left either: a later erasure could not reach it."""
    if engine.dialect.name != "sqlite":
        return
    fill(database_url, 300, LONG_AGO, "zebedee bob")
    with opened(database_url) as blocking:
        event.listen(blocking, "connect", _off, insert=True)
        assert sum(Pruning(blocking, Signer(KEY), NOW).prune(NOW)) == 300
    assert b"zebedee" not in b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())


def test_a_reader_that_keeps_erased_text(engine: AsyncEngine, database_url: str) -> None:
    """While somebody reads an older state of an SQLite file the text stays in its log: the command says so."""
    if engine.dialect.name != "sqlite":
        return
    fill(database_url, 30, NOW, "zebedee bob")
    reader, blocking = open_blocking_engine(database_url), open_blocking_engine(database_url, 1)
    eraser = Eraser(blocking.execution_options(**WRITING), Signer(KEY), NOW)
    with reader.begin() as connection:
        assert connection.execute(select(ledger_entries.c.id)).all()
        with pytest.raises(LedgerInUse):
            list(eraser.erase("zebedee"))
    assert list(eraser.erase("zebedee")) == []
    reader.dispose()
    blocking.dispose()


def test_upkeep_takes_turns(url: str) -> None:
    """Several who prune and erase at once leave a ledger that verifies, and nothing undone."""
    fill(url, 1500, LONG_AGO)
    fill(url, 1500, NOW)

    def erase() -> int:
        with opened(url) as engine:
            return sum(Eraser(engine, Signer(KEY), NOW).erase("ana"))

    def prune() -> int:
        with opened(url) as engine:
            return sum(Pruning(engine, Signer(KEY), NOW).prune(NOW))

    with ThreadPoolExecutor(6) as pool:
        counts = list(pool.map(lambda act: act(), [erase, prune] * 3))
    assert sum(counts[1::2]) == 1500
    assert 750 <= sum(counts[0::2]) <= 1500
    finding = checked(url)
    assert (finding.entries, finding.erased) == (1500, 750)


def test_another_that_prunes_is_no_damage(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints that another run removes while they are looked through were not changed."""
    for _ in range(8):
        fill(url, 1, LONG_AGO)
    monkeypatch.setattr(retention, "CHUNK", 4)
    looked, page = [0], retention.checkpoints_after

    def meanwhile(connection: Any, number: int | None, count: int) -> Any:
        looked[0] += 1
        found = page(connection, number, count)
        if looked[0] == 1:
            connection.commit()
            with opened(url) as other:
                assert sum(Pruning(other, Signer(KEY), NOW).prune(NOW)) == 0
        return found

    with opened(url) as engine:
        for writer in [entry.writer for entry in _chains(engine)]:
            Pruning(engine, Signer(KEY), NOW)._prune_chain(writer, written_time(NOW))
        monkeypatch.setattr(retention, "checkpoints_after", meanwhile)
        assert sum(Pruning(engine, Signer(KEY), NOW).prune(NOW)) == 0
    assert looked[0] > 2
    assert checked(url).checkpoints == 1


def _chains(engine: Engine) -> Any:
    with engine.begin() as connection:
        return connection.execute(select(ledger_heads.c.writer)).all()


@pytest.mark.parametrize("what", ["prune", "erase"])
def test_a_killed_run_is_gone_on_with(url: str, what: str) -> None:
    """However a run was ended, the ledger verifies, and the next run does the rest."""
    fill(url, 400, LONG_AGO)
    command = [sys.executable, "-c", PROGRAM, what, url, KEY, NOW.isoformat()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for _ in range(3):
            assert process.stdout.readline() == "20\n"
        process.send_signal(signal.SIGKILL)
    finding = checked(url)
    if what == "prune":
        assert 0 < finding.entries <= 340
        with opened(url) as engine:
            assert sum(Pruning(engine, Signer(KEY), NOW).prune(NOW)) == finding.entries
    else:
        assert 60 <= finding.erased < 200
        with opened(url) as engine:
            assert sum(Eraser(engine, Signer(KEY), NOW).erase("ana")) == 200 - finding.erased
    checked(url)


async def test_beside_a_ledger_that_writes(url: str, engine: AsyncEngine, tmp_path: Path) -> None:
    """Pruning and erasing disturb no writer: all that was recorded meanwhile is there, and verifies."""
    await asyncio.to_thread(fill, url, 3000, LONG_AGO)
    options = {"signing_key": KEY, "spool_folder": tmp_path / "spool"}
    journal = open_journal(
        Settings(_env_file=None, database_url=url, ledger=options), QuotaChargeRecorder(UsageMeter(engine))
    )

    def upkeep() -> None:
        with opened(url) as blocking:
            assert sum(Eraser(blocking, Signer(KEY), NOW).erase("ana")) >= 1500
            assert sum(Pruning(blocking, Signer(KEY), NOW).prune(NOW)) == 3000

    async with Ledger(journal, lambda *_: None, lambda _: None) as ledger:
        work = asyncio.create_task(asyncio.to_thread(upkeep))
        ids = []
        while not work.done():
            ids.append(await ledger.record(facts("bob"), None))
        await work
    with opened(url) as blocking, blocking.begin() as connection:
        assert list(connection.execute(select(ledger_entries.c.id).order_by(ledger_entries.c.id)).scalars()) == ids
    checked(url)
