"""`atalaya ledger verify` and `export` in the test's own process: options, files and errors."""

from __future__ import annotations

import json
import sqlite3
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from api.cli import run
from api.commands.database import run_with_accounts
from api.settings import Settings, load_settings
from monitoring.chains.ids import MonotonicIds
from monitoring.chains.signing import Signer
from monitoring.ledger.chain import Chain
from monitoring.ledger.entries import EntryDraft
from monitoring.ledger.writing.store import LedgerStore
from storage.engine import open_blocking_engine
from storage.transactions import WRITING
from tests.api.commands.ledgers import DAYS, Run, build_facts, exported
from tests.monitoring.ledger.ledgers import execute
from tests.support.callers import running_threads


def test_a_principal_is_a_user_name_or_a_subject(ledger: Run) -> None:
    """`--principal` takes the name of a user, or the subject of a principal of another issuer."""
    for name, known in (("ana", 3), ("ext", 3)):
        records = exported(ledger, "e.jsonl", "--principal", name)
        assert sum(bool(record.get("payload")) for record in records) == known
        status, out, err = ledger("verify", "e.jsonl")
        assert (status, err) == (0, "")
        assert f"{6 - known} are withheld: this export proves only what it contains (principal " in out
    exported(ledger, "e.jsonl", "--principal", "ana", "--until", DAYS[1])
    assert " 1 is withheld: this export proves only what it contains (until " in ledger("verify", "e.jsonl")[1]


def test_verifying_without_a_key_names_the_option(ledger: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any key, verifying a database or an export says to give the public key, not to generate another key."""
    exported(ledger, "e.jsonl")
    monkeypatch.delenv("LEDGER__SIGNING_KEY")
    for arguments in ((), ("e.jsonl",)):
        status, out, err = ledger("verify", *arguments)
        assert (status, out) == (1, "")
        assert err.startswith("error: There is no key to verify with. Use --public-key with the key that"), err
    monkeypatch.setenv("ENVIRONMENT", "nonsense")  # an export needs no settings
    assert "Use --public-key" in ledger("verify", str(tmp_path / "e.jsonl"))[2]


def test_a_window_has_dates_or_times(ledger: Run) -> None:
    """A window is given by dates, or by times with offsets; it includes its beginning but not its end."""
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


def test_an_anchor_outside_of_a_window_is_not_reported_as_missing(ledger: Run) -> None:
    """The message says that a window lacks the anchor; a checkpoint that replaced the anchor is reported."""
    _, whole, _ = ledger("verify", "--json")
    newest = json.loads(whole)["anchor"]
    exported(ledger, "e.jsonl", "--since", DAYS[0], "--until", DAYS[1])
    status, _, message = ledger("verify", "e.jsonl", "--anchor", f"{newest['number']}:{newest['hash']}")
    assert (status, "is not in this window: verify the whole ledger against it" in message) == (1, True)
    number = next(json.loads(line)["number"] for line in Path("e.jsonl").read_text().splitlines() if '"number"' in line)
    status, _, message = ledger("verify", "e.jsonl", "--anchor", f"{number}:{newest['hash']}")
    assert (status, "is missing, or was replaced" in message) == (1, True)
    assert ledger("verify", "e.jsonl", "--anchor", "9" * 5000 + ":ab")[0] == 2


def test_only_json_lines_go_to_standard_output(ledger: Run) -> None:
    """`-` writes JSON lines only; --json and Parquet are rejected with it."""
    status, out, err = ledger("export", "-")
    assert status == 0
    assert [json.loads(line)["kind"] for line in out.splitlines()].count("entry") == 6
    assert err == "6 entries exported, 6 with a payload.\n"
    assert ledger("export", "-", "--format", "parquet")[:2] == (2, "")
    status, out, _ = ledger("export", "-", "--json")
    assert (status, json.loads(out)["error"]["code"]) == (2, "usage_error")


def test_an_export_is_written_to_standard_output_beside_a_progress_bar(
    ledger: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a terminal as standard error, which shows a progress bar, an export still goes to standard output."""
    monkeypatch.setenv("FORCE_COLOR", "1")  # makes rich take the captured standard error for a terminal
    status, out, err = ledger("export", "-")
    assert (status, out.count('"kind":"entry"'), "exporting" in err) == (0, 6, True)


def test_an_export_replaces_the_file_when_complete(
    ledger: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A complete export replaces an older file and is readable only by its owner; a failed one leaves no file."""
    older = tmp_path / "e.jsonl"
    older.write_text("an older one")
    older.chmod(0o644)
    assert len(exported(ledger, "e.jsonl")) == 12
    assert stat.S_IMODE(older.stat().st_mode) == 0o600
    before = sorted(path.name for path in tmp_path.iterdir())
    assert ledger("export", "nowhere/e.jsonl")[0] == 1
    assert ledger("export", str(tmp_path))[0] == 2
    assert ledger("export", "/dev/null")[0] == 2
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # as if it were not installed
    for name in [name for name in sys.modules if name == "monitoring.ledger.exports.parquet"]:
        monkeypatch.delitem(sys.modules, name)
    status, _, err = ledger("export", "e.parquet", "--format", "parquet")
    assert (status, "requirements/parquet.txt" in err) == (1, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_exports_are_recorded_in_the_audit_log(ledger: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """The audit log records an export with its filters."""
    exported(ledger, "e.jsonl", "--since", "2026-11-02")
    assert run(["audit", "--event", "ledger", "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert (entry["outcome"], entry["detail"]["since"]) == ("exported", "2026-11-02T00:00:00.000000Z")


def test_verifying_an_export_needs_only_the_public_key(
    ledger: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without settings, database and private key, an export verifies with the public key."""
    exported(ledger, "e.jsonl")
    key = ledger("key")[1].strip()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.delenv("LEDGER__SIGNING_KEY")
    monkeypatch.setenv("DATABASE_URL", "none")
    status, out, err = ledger("verify", "../e.jsonl", "--public-key", key)
    assert (status, err) == (0, "")
    assert out.startswith("6 entries of 1 writer, unchanged. Keep this anchor outside the database: 4:")
    assert list(elsewhere.iterdir()) == []
    anchor = out.split()[-1]
    assert ledger("verify", "../e.jsonl", "--public-key", key, "--anchor", anchor)[0] == 0
    assert ledger("verify", "../e.jsonl", "--public-key", key, "--anchor", f"5{anchor[1:]}")[0] == 1
    assert ledger("verify", "../e.jsonl", "--public-key", key, "--anchor", "4")[0] == 2
    assert ledger("verify", "../e.jsonl", "--public-key", "short")[0] == 1
    assert ledger("verify", "../none.jsonl", "--public-key", key)[0] == 1


def test_all_problems_are_in_the_json_output(ledger: Run, environment: Settings) -> None:
    """The error names the first problem and how many more there are; --json lists all."""
    execute(environment.database_url.get_secret_value(), "UPDATE ledger_payloads SET status = 500 WHERE seq > 4")
    status, out, err = ledger("verify", "--json")
    document = json.loads(out)
    assert (status, document["ok"], document["entries"]) == (1, False, 6)
    assert [problem[:23] for problem in document["problems"]] == ["The payload of entry 5 ", "The payload of entry 6 "]
    assert err == f"error: {document['problems'][0]} --json lists 1 more.\n"


@contextmanager
def writing_meanwhile(environment: Settings) -> Iterator[None]:
    """Write another chain and its checkpoints without a pause until the context ends."""
    ids = MonotonicIds()
    engine = open_blocking_engine(environment.database_url.get_secret_value(), 30).execution_options(**WRITING)
    store, chain = LedgerStore(engine, Signer(environment.ledger_key())), Chain(ids.new())
    store.open_chain(chain.writer)

    def write(ended: threading.Event) -> None:
        while not ended.is_set():
            linked = chain.link([EntryDraft(ids.new(), "2026-11-04T09:30:00.000000Z", build_facts("ext"))])
            with store.batch_transaction() as connection:
                store.append(connection, linked, chain)
            chain.advance(linked)
            store.write_checkpoint()

    with closing(store), running_threads(write, 1):
        yield


def test_verify_and_export_read_one_snapshot(ledger: Run, environment: Settings) -> None:
    """Verifying and exporting read one snapshot of the database: concurrent writes cause no false alarm."""
    with writing_meanwhile(environment):
        for _ in range(3):
            assert ledger("verify")[2] == ""
            exported(ledger, "e.jsonl", "--since", "2026-11-02")
            assert ledger("verify", "e.jsonl")[2] == ""


def test_an_empty_ledger_is_reported(ledger: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty ledger is reported as such; a missing file and missing tables are errors."""
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/new.db")
    status, _, err = ledger("verify")
    assert (status, err) == (
        1,
        f"error: There is no database at {tmp_path}/new.db. Run `atalaya db init` to create it.\n",
    )
    assert not (tmp_path / "new.db").exists()
    (tmp_path / "new.db").touch()
    assert ledger("verify")[0] == 1
    run_with_accounts(load_settings(), migrate_only, create=True)
    status, out, _ = ledger("verify")
    assert (status, "The ledger is empty" in out) == (0, True)
    with closing(sqlite3.connect(tmp_path / "new.db")) as database:
        assert database.execute("SELECT count(*) FROM ledger_entries").fetchone() == (0,)


async def migrate_only(_: object) -> None:
    """Do nothing: `run_with_accounts` has already migrated the tables."""
