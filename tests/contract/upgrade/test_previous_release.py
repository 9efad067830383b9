"""Data that release 0.1.0 has written, read and continued by this release: its database, spool and export.

`record.py` has recorded the files with that release: three predictions that can be replayed, one that was erased, one
refused image, one failed login, one API key, and one prediction that was in the spool when the gateway was killed.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import create_engine, insert, inspect, select

from api.cli import run
from api.commands.database import run_with_engine
from api.settings import Settings, load_settings
from auth.tables import metadata as auth_tables
from monitoring.audit.tables import metadata as audit_tables
from monitoring.chains.signing import Signer, new_private_key
from monitoring.ledger.tables import metadata as ledger_tables
from monitoring.ledger.upkeep.pruning import Pruner
from storage.engine import open_blocking_engine
from storage.transactions import WRITING
from tests.support.gateway import make_gateway
from tests.support.paths import FOREST, ROOT
from tests.support.polling import wait_until

RELEASE = Path(__file__).with_name("release_0_1_0")
FACTS = json.loads((RELEASE / "facts.json").read_text())
TABLES = [table for metadata in (auth_tables, audit_tables, ledger_tables) for table in metadata.sorted_tables]

Atalaya = Callable[..., tuple[int, str, str]]


def restore(dump: Path, path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(dump.read_text())


async def migrated(_: object) -> None:
    """`run_with_engine` has applied the migrations."""


def copy_rows(source: Path, url: str) -> None:
    """Copy every row into the migrated, empty database at `url`; newer tables stay empty, newer columns null."""
    old, new = create_engine(f"sqlite:///{source}"), open_blocking_engine(url).execution_options(**WRITING)
    with old.connect() as reader, new.begin() as writer:
        for table in TABLES:
            writer.execute(table.delete())
        known = inspect(reader)
        for table in TABLES:
            names = (
                {column["name"] for column in known.get_columns(table.name)} if known.has_table(table.name) else set()
            )
            columns = [column for column in table.columns if column.name in names]
            rows = [dict(row) for row in reader.execute(select(*columns)).mappings()] if columns else []
            if rows:
                writer.execute(insert(table), rows)
    old.dispose()
    new.dispose()


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database_url: str) -> Settings:
    """Settings with a new ledger key and the database of release 0.1.0, whose rows are copied for PostgreSQL."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("LEDGER__SIGNING_KEY", new_private_key())
    monkeypatch.setenv("MODEL__URL", f"onnx://{ROOT}/artifacts/efficientnetb0-v1.1")
    settings = load_settings()
    if database_url.startswith("sqlite"):
        restore(RELEASE / "database.sql", Path(database_url.removeprefix("sqlite:///")))
    else:
        restore(RELEASE / "database.sql", tmp_path / "old.db")
        run_with_engine(settings, migrated, create=True)
        copy_rows(tmp_path / "old.db", database_url)
    return settings


@pytest.fixture
def atalaya(settings: Settings, capsys: pytest.CaptureFixture[str]) -> Atalaya:
    """Run `atalaya …`; returns its exit status, standard output and standard error."""
    assert settings.ledger_key() != FACTS["public_key"]

    def atalaya(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = run(list(arguments))
        output = capsys.readouterr()
        return status, output.out, output.err

    return atalaya


def verified(atalaya: Atalaya, *arguments: str, keys: tuple[str, ...] = (FACTS["public_key"],)) -> dict[str, Any]:
    """The report of `atalaya ledger verify`, which must succeed."""
    options = [option for key in keys for option in ("--public-key", key)]
    status, out, err = atalaya("ledger", "verify", *arguments, *options, "--json")
    assert status == 0, err
    report: dict[str, Any] = json.loads(out)
    return report


def test_the_ledger_verifies(atalaya: Atalaya) -> None:
    """Every entry, head and checkpoint of the earlier release is accepted with its public key."""
    report = verified(atalaya)
    assert (report["problems"], report["writers"], report["entries"], report["erased"]) == ([], 2, 5, 1)


def test_the_export_verifies(atalaya: Atalaya) -> None:
    """An export that the earlier release has written is accepted with its public key."""
    assert verified(atalaya, str(RELEASE / "export.jsonl"))["entries"] == 5


def test_exports_are_the_same(atalaya: Atalaya, tmp_path: Path) -> None:
    """This release exports the ledger byte for byte as the earlier one did."""
    status, _, err = atalaya("ledger", "export", str(tmp_path / "export.jsonl"))
    assert status == 0, err
    assert (tmp_path / "export.jsonl").read_bytes() == (RELEASE / "export.jsonl").read_bytes()


def test_predictions_of_the_stub_are_replayed(atalaya: Atalaya) -> None:
    """A prediction of the earlier release is reproduced; another processor may change the last bits."""
    ((prediction_id, sample),) = FACTS["of_the_stub"].items()
    _, out, err = atalaya("ledger", "replay", prediction_id, str(ROOT / "samples" / sample), "--json")
    assert json.loads(out)["largest_difference"] < 1e-5, err


@pytest.mark.parametrize("prediction_id", FACTS["of_the_shipped_model"])
def test_the_error_names_the_model_that_a_replay_needs(atalaya: Atalaya, prediction_id: str) -> None:
    """A prediction of a model that this release no longer ships needs the folder of that model."""
    image = ROOT / "samples" / FACTS["of_the_shipped_model"][prediction_id]
    status, _, err = atalaya("ledger", "replay", prediction_id, str(image))
    assert status == 1
    assert "No folder holds efficientnetb0-v1.0 with the digest b90215f7" in err


def test_the_ledger_is_pruned(atalaya: Atalaya, settings: Settings) -> None:
    """Entries of the earlier release are pruned under this release's key, and the rest verifies with both keys."""
    signer = Signer(settings.ledger_key())
    run_with_engine(settings, migrated)  # as the command does
    engine = open_blocking_engine(settings.database_url.get_secret_value()).execution_options(**WRITING)
    later = datetime.now(UTC) + timedelta(days=1)
    assert sum(Pruner(engine, signer, later, [FACTS["public_key"]]).prune(later)) == 5
    engine.dispose()
    report = verified(atalaya, keys=(FACTS["public_key"], signer.public_key))
    assert (report["problems"], report["entries"]) == ([], 0)


def test_the_audit_log_verifies(atalaya: Atalaya) -> None:
    """This release verifies the audit log of the earlier one, which still lists the failed login."""
    status, out, err = atalaya("audit", "verify", "--json")
    assert status == 0, err
    assert json.loads(out)["problem"] is None
    _, out, _ = atalaya("audit", "--json")
    assert ("token", "refused") in {(entry["event"], entry["outcome"]) for entry in json.loads(out)}


def test_the_database_is_current(settings: Settings, tmp_path: Path) -> None:
    """The migrated tables of release 0.1.0 have the same schema as those of a new database."""
    fresh, copy = tmp_path / "fresh.db", tmp_path / "copy.db"
    restore(RELEASE / "database.sql", copy)
    for path in (fresh, copy):
        changed = settings.model_copy(update={"database_url": SecretStr(f"sqlite:///{path}")})
        run_with_engine(changed, migrated, create=True)
    assert schema(copy) == schema(fresh)


def schema(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        return {sql for (sql,) in connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")}


def test_a_gateway_continues(tmp_path: Path) -> None:
    """After the upgrade an old password logs in, old predictions are listed, and the spool is delivered."""
    gateway = make_gateway(tmp_path)
    gateway.database_path.unlink()
    restore(RELEASE / "database.sql", gateway.database_path)
    spool = tmp_path / "var" / "spool" / "old.spool"
    spool.parent.mkdir(parents=True)
    restore(RELEASE / "spool.sql", spool)
    gateway.start()
    try:
        client = gateway.client("ana")
        wait_until(lambda: client.get(f"/v1/predictions/{FACTS['spooled']}").status_code == 200)
        new = client.post("/v1/predictions", files={"file": FOREST.read_bytes()}).raise_for_status().json()["id"]
        wait_until(lambda: client.get(f"/v1/predictions/{new}").status_code == 200)
        listed = [item["id"] for item in client.get("/v1/predictions").raise_for_status().json()["entries"]]
        assert {new, FACTS["spooled"], *FACTS["of_the_shipped_model"], *FACTS["of_the_stub"]} <= set(listed)
        assert client.get(f"/v1/predictions/{FACTS['erased']}").status_code == 404
    finally:
        assert gateway.stop() == 0, gateway.log()
    own_key = gateway.run("ledger", "key").stdout.strip()
    checked = gateway.run("ledger", "verify", "--public-key", own_key, "--public-key", FACTS["public_key"])
    assert checked.returncode == 0, checked.stderr
