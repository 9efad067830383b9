"""`atalaya ledger prune` and `erase` in the test's own process: names, confirmation and what is recorded."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from sqlalchemy import select

from api.cli import run
from api.commands.database import run_with_accounts
from api.settings import Settings
from auth.principal import Role
from monitoring.ledger.tables import ledger_entries
from storage.engine import open_blocking_engine
from tests.api.commands.ledgers import Run, exported, find_ana

NO_IMAGES = "no images (IMAGES__URL is not set)"


def test_unknown_names_are_errors(ledger: Run, tmp_path: Path) -> None:
    """A user or model without any record is an error, and nothing is exported or erased."""
    for command in (("export", "e.jsonl", "--principal", "nobody"), ("erase", "--principal", "nobody", "--yes")):
        status, out, err = ledger(*command)
        assert (status, out) == (1, "")
        assert err.startswith("error: There is no user nobody, and the ledger has no predictions of a subject"), err
    status, out, err = ledger("export", "e.jsonl", "--model", "other-v1.0")
    assert (status, out) == (1, "")
    assert err.startswith("error: The ledger has no predictions of a model other-v1.0. Write NAME-vVERSION"), err
    assert not (tmp_path / "e.jsonl").exists()
    assert json.loads(ledger("verify", "--json")[1])["erased"] == 0


def test_a_user_without_predictions_is_known(ledger: Run, environment: Settings) -> None:
    """Exporting or erasing a user without predictions, by name or by id, succeeds and has nothing to do."""
    assert ledger("erase", "--principal", "ana", "--yes")[:2] == (
        0,
        f"Erased 3 predictions and {NO_IMAGES} of ana.\n",
    )
    for name in ("ana", find_ana(environment)):
        assert ledger("erase", "--principal", name, "--yes")[:2] == (
            0,
            f"Erased 0 predictions and {NO_IMAGES} of {name}.\n",
        )
        assert len(exported(ledger, "e.jsonl", "--principal", name)) == 12


def test_pruning_is_shown_first_and_confirmed(ledger: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """`prune --dry-run` only counts; without a terminal `prune` and `erase` require --yes and remove nothing."""
    monkeypatch.setenv("LEDGER__KEEP_DAYS", "1")
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert ledger("prune", "--dry-run")[:2] == (0, "6 predictions older than 1 day would be removed.\n")
    assert json.loads(ledger("prune", "--dry-run", "--json")[1]) == {"would_remove": 6}
    for command in (("prune",), ("erase", "--principal", "ana")):
        status, out, err = ledger(*command)
        assert (status, out) == (1, "")
        assert err == (
            "error: Nothing was changed, because there is no terminal to ask for confirmation. Use --yes in scripts.\n"
        )
    assert json.loads(ledger("verify", "--json")[1])["entries"] == 6
    assert ledger("prune", "--yes")[:2] == (0, "6 predictions older than 1 day removed.\n")
    assert json.loads(ledger("verify", "--json")[1])["entries"] == 0


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("act", "outcome"), [(("prune", "--yes"), "pruned"), (("erase", "--principal", "ana", "--yes"), "erased")]
)
def test_interrupted_upkeep_is_recorded_in_the_audit_log(
    environment: Settings,
    ledger: Run,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    act: tuple[str, ...],
    outcome: str,
) -> None:
    """When another reader keeps removed text in SQLite's files, the command fails, but the audit log records it."""
    monkeypatch.setattr("api.commands.database._LOCK_TIMEOUT_S", 0.1)
    monkeypatch.setenv("LEDGER__KEEP_DAYS", "1")
    reader = open_blocking_engine(environment.database_url.get_secret_value())
    with reader.begin() as connection:
        assert connection.execute(select(ledger_entries.c.id)).all()
        status, _, message = ledger(*act)
    assert (status, "another program is reading" in message) == (1, True), message
    reader.dispose()
    assert run(["audit", "--event", "ledger", "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert entry["outcome"] == outcome


def test_an_erasure_is_recorded_without_the_ledger(
    environment: Settings, ledger: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the ledger disabled and no key, the audit log records who erased a person's images and other records."""
    run_with_accounts(environment, lambda accounts: accounts.add("bob", Role.CLIENT, "correct horse battery"))
    monkeypatch.setenv("LEDGER__ENABLED", "false")
    monkeypatch.delenv("LEDGER__SIGNING_KEY")
    assert ledger("erase", "--principal", "bob", "--yes")[:2] == (0, f"Erased 0 predictions and {NO_IMAGES} of bob.\n")
    assert run(["audit", "--event", "ledger", "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert (entry["outcome"], entry["detail"]) == ("erased", {"payloads": "0"})


def test_a_user_with_predictions_is_not_deleted_without_the_key(
    ledger: Run, environment: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the ledger disabled and no key, a user whose earlier predictions cannot be erased is not deleted."""
    run_with_accounts(environment, lambda accounts: accounts.add("bob", Role.CLIENT, "correct horse battery"))
    key = environment.ledger_key()
    monkeypatch.setenv("LEDGER__ENABLED", "false")
    monkeypatch.delenv("LEDGER__SIGNING_KEY")
    capsys.readouterr()
    assert run(["users", "delete", "bob", "--yes"]) == 0
    assert run(["users", "delete", "ana", "--yes"]) == 1
    assert "needs LEDGER__SIGNING_KEY" in capsys.readouterr().err
    monkeypatch.setenv("LEDGER__SIGNING_KEY", key)
    assert run(["users", "delete", "ana", "--yes"]) == 0
    assert "ana: deleted; erased 3 predictions" in capsys.readouterr().out
    assert ledger("verify")[0] == 0
