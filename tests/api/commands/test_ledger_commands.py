"""`atalaya ledger verify` and `export` in the test's own process: options, files and what goes wrong."""

from __future__ import annotations

import json
import sqlite3
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from api.cli import run
from api.commands.users import run_with_accounts
from api.settings import Settings
from auth.principal import Role
from monitoring.chains.signing import Signer, new_private_key
from monitoring.ledger.chain import Chain
from monitoring.ledger.entries import Draft
from monitoring.ledger.identity import Ids
from monitoring.ledger.store import LedgerStore
from monitoring.ledger.tables import ledger_entries
from storage.engine import open_blocking_engine
from storage.transactions import WRITING

Run = Callable[..., tuple[int, str, str]]
DAYS = ("2026-11-01", "2026-11-02", "2026-11-03")


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database_url: str) -> Settings:
    """A database of either kind with the user `ana` and one prediction of hers and one of a subject's on each day."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("LEDGER__SIGNING_KEY", new_private_key())
    settings = Settings(_env_file=None)

    async def add(accounts: Any) -> None:
        await accounts.add("ana", Role.CLIENT, "correct horse battery")

    run_with_accounts(settings, add)
    ids, engine = Ids(), open_blocking_engine(database_url)
    store = LedgerStore(engine.execution_options(**WRITING), Signer(settings.ledger_key()))
    chain = Chain(ids.new())
    store.open_chain(chain.writer)
    for day in DAYS:
        drafts = [Draft(ids.new(), f"{day}T09:30:00.000000Z", facts(who)) for who in (subject_of_ana(settings), "ext")]
        links = chain.links(drafts)
        with store.transaction() as connection:
            store.append(connection, links, chain)
        chain.advance(links)
        store.checkpoint()
    store.close()
    return settings


def subject_of_ana(settings: Settings) -> str:
    from api.commands.ledger.database import principal_named

    return principal_named(settings, "ana")


def facts(principal: str) -> dict[str, Any]:
    return {"principal": principal, "status": 200, "code": None, "model": None, "output": None}


@pytest.fixture
def ledger(environment: Settings, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `atalaya ledger …`; returns its exit status, standard output and standard error."""
    assert environment.ledger_key()

    def ledger(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = run(["ledger", *arguments])
        output = capsys.readouterr()
        return status, output.out, output.err

    return ledger


def exported(ledger: Run, path: str, *options: str) -> list[dict[str, Any]]:
    status, _, err = ledger("export", path, *options)
    assert status == 0, err
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def test_a_name_is_a_user_and_else_a_subject(ledger: Run) -> None:
    """A user is named by the name people know, and somebody from another issuer by the subject."""
    for name, known in (("ana", 3), ("ext", 3), ("nobody", 0)):
        records = exported(ledger, "e.jsonl", "--principal", name)
        assert sum(bool(record.get("payload")) for record in records) == known
        status, out, err = ledger("verify", "e.jsonl")
        assert (status, err) == (0, "")
        assert f"{6 - known} are withheld: this export proves what it holds, no more (principal " in out


def test_a_window_is_days_or_moments(ledger: Run) -> None:
    """A time is a day, or a moment with its offset; the window holds its beginning and not its end."""
    for since, until, days in (
        ("2026-11-02", "2026-11-03", DAYS[1:2]),
        ("2026-11-02T09:30:00Z", "2026-11-03T09:30:00Z", DAYS[1:2]),
        ("2026-11-02T11:30:00.000001+02:00", "2027-01-01", DAYS[2:]),
    ):
        records = exported(ledger, "e.jsonl", "--since", since, "--until", until)
        assert sorted({record["at"][:10] for record in records if record.get("payload")}) == list(days)
        assert ledger("verify", "e.jsonl")[0] == 0
    for time in ("yesterday", "0001-01-01T00:00:00+05:00", "9999-12-31T23:00:00-05:00"):
        assert ledger("export", "x.jsonl", "--since", time)[0] == 2


def test_a_window_is_held_against_no_anchor_outside_it(ledger: Run) -> None:
    """A window may lack the checkpoint that was noted: that is no accusation; another in its place is one."""
    _, whole, _ = ledger("verify", "--json")
    newest = json.loads(whole)["anchor"]
    exported(ledger, "e.jsonl", "--since", DAYS[0], "--until", DAYS[1])
    status, _, told = ledger("verify", "e.jsonl", "--anchor", f"{newest['number']}:{newest['hash']}")
    assert (status, "is not in this window: check the whole ledger against it" in told) == (1, True)
    number = next(json.loads(line)["number"] for line in Path("e.jsonl").read_text().splitlines() if '"number"' in line)
    status, _, told = ledger("verify", "e.jsonl", "--anchor", f"{number}:{newest['hash']}")
    assert (status, "is not there any more, or is another" in told) == (1, True)
    assert ledger("verify", "e.jsonl", "--anchor", "9" * 5000 + ":ab")[0] == 2


def test_standard_output_takes_lines_alone(ledger: Run) -> None:
    """`-` writes JSON lines and nothing else; what would mix with them, or cannot be streamed, is refused."""
    status, out, err = ledger("export", "-")
    assert status == 0
    assert [json.loads(line)["kind"] for line in out.splitlines()].count("entry") == 6
    assert err == "6 entries exported, 6 with their payload.\n"
    for options in (["--json"], ["--format", "parquet"]):
        assert ledger("export", "-", *options)[:2] == (2, "")


def test_an_export_is_there_once_it_is_whole(ledger: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the place of an older one in the end, readable by its owner alone; one that fails leaves nothing."""
    older = tmp_path / "e.jsonl"
    older.write_text("an older one")
    older.chmod(0o644)
    assert len(exported(ledger, "e.jsonl")) == 12
    assert stat.S_IMODE(older.stat().st_mode) == 0o600
    before = sorted(path.name for path in tmp_path.iterdir())
    assert ledger("export", "nowhere/e.jsonl")[0] == 1
    assert ledger("export", str(tmp_path))[0] == 2
    assert ledger("export", "/dev/null")[0] == 2
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # as where it is not installed
    for name in [name for name in sys.modules if name == "monitoring.ledger.parquet"]:
        monkeypatch.delitem(sys.modules, name)
    status, _, err = ledger("export", "e.parquet", "--format", "parquet")
    assert (status, "requirements/parquet.txt" in err) == (1, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_handing_out_is_on_record(ledger: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Who exports, and what of, is an act in the record of access."""
    exported(ledger, "e.jsonl", "--since", "2026-11-02")
    assert run(["audit", "--event", "ledger", "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert (entry["outcome"], entry["detail"]["since"]) == ("exported", "2026-11-02T00:00:00.000000Z")


def test_an_auditor_needs_the_public_key_alone(ledger: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somewhere else, without settings, database or private key, an export verifies by the public key."""
    exported(ledger, "e.jsonl")
    key = ledger("key")[1].strip()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.delenv("LEDGER__SIGNING_KEY")
    monkeypatch.setenv("DATABASE_URL", "none")
    status, out, err = ledger("verify", "../e.jsonl", "--public-key", key)
    assert (status, err) == (0, "")
    assert out.startswith("6 entries of 1 writers, unchanged. Keep this elsewhere: 4:")
    assert list(elsewhere.iterdir()) == []
    anchor = out.split()[-1]
    assert ledger("verify", "../e.jsonl", "--public-key", key, "--anchor", anchor)[0] == 0
    assert ledger("verify", "../e.jsonl", "--public-key", key, "--anchor", f"5{anchor[1:]}")[0] == 1
    assert ledger("verify", "../e.jsonl", "--public-key", key, "--anchor", "4")[0] == 2
    assert ledger("verify", "../e.jsonl", "--public-key", "short")[0] == 1
    assert ledger("verify", "../none.jsonl", "--public-key", key)[0] == 1


def test_all_that_is_wrong_is_in_the_document(ledger: Run, environment: Settings) -> None:
    """One line tells the first problem and how many more there are; --json lists them."""
    engine = open_blocking_engine(environment.database_url.get_secret_value())
    with engine.execution_options(**WRITING).begin() as connection:
        connection.exec_driver_sql("UPDATE ledger_payloads SET status = 500 WHERE seq > 4")
    engine.dispose()
    status, out, err = ledger("verify", "--json")
    document = json.loads(out)
    assert (status, document["ok"], document["entries"]) == (1, False, 6)
    assert [problem[:23] for problem in document["problems"]] == ["The payload of entry 5 ", "The payload of entry 6 "]
    assert err == f"error: {document['problems'][0]} --json tells 1 more.\n"


@contextmanager
def written_meanwhile(environment: Settings) -> Iterator[None]:
    """Somebody writes a chain of their own without a pause, and checkpoints."""
    stop, ids = threading.Event(), Ids()
    engine = open_blocking_engine(environment.database_url.get_secret_value(), 30).execution_options(**WRITING)
    store, chain = LedgerStore(engine, Signer(environment.ledger_key())), Chain(ids.new())
    store.open_chain(chain.writer)

    def write() -> None:
        while not stop.is_set():
            links = chain.links([Draft(ids.new(), "2026-11-04T09:30:00.000000Z", facts("ext"))])
            with store.transaction() as connection:
                store.append(connection, links, chain)
            chain.advance(links)
            store.checkpoint()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        store.close()


def test_a_gateway_may_write_meanwhile(ledger: Run, environment: Settings) -> None:
    """What is checked or handed out is one state of the database, whoever writes: there is no false alarm."""
    with written_meanwhile(environment):
        for _ in range(3):
            assert ledger("verify")[2] == ""
            exported(ledger, "e.jsonl", "--since", "2026-11-02")
            assert ledger("verify", "e.jsonl")[2] == ""


def test_an_empty_ledger_is_told_apart(ledger: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database without a ledger is no proof of anything, and one without its tables cannot be read."""
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/new.db")
    status, _, err = ledger("verify")
    assert (status, err) == (1, f"error: DATABASE_URL: there is no file {tmp_path}/new.db.\n")
    assert not (tmp_path / "new.db").exists()
    (tmp_path / "new.db").touch()
    assert ledger("verify")[0] == 1
    run_with_accounts(Settings(_env_file=None), _nothing)
    status, out, _ = ledger("verify")
    assert (status, "There is nothing in it" in out) == (0, True)
    assert sqlite3.connect(tmp_path / "new.db").execute("SELECT count(*) FROM ledger_entries").fetchone() == (0,)


async def _nothing(_: object) -> None:
    """The tables are made before."""


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("act", "outcome"), [(("prune",), "pruned"), (("erase", "--principal", "ana", "--yes"), "erased")]
)
def test_an_act_that_ends_on_the_way_is_on_record(
    environment: Settings,
    ledger: Run,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    act: tuple[str, ...],
    outcome: str,
) -> None:
    """A reader keeps the removed text in SQLite's files: the command says so, and that it began is on record."""
    monkeypatch.setattr("api.commands.ledger.upkeep._PATIENCE_S", 0.1)
    monkeypatch.setenv("LEDGER__KEEP_DAYS", "1")
    reader = open_blocking_engine(environment.database_url.get_secret_value())
    with reader.begin() as connection:
        assert connection.execute(select(ledger_entries.c.id)).all()
        status, _, told = ledger(*act)
    assert (status, "another program is reading" in told) == (1, True), told
    reader.dispose()
    assert run(["audit", "--event", "ledger", "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert entry["outcome"] == outcome
