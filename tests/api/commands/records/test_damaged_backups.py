"""Backups with valid checksums but unusable content, as a tampered file or a defective release would leave them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from api.cli import run
from api.commands.backup import archive
from api.commands.backup.archive import read_archive, writing_archive
from api.settings import Settings
from storage.backups import tables
from tests.api.commands.records.databases import lose_database

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
_TABLE = "tables/task_runs"


def write_backup(path: Path, members: dict[str, bytes], **changes: Any) -> None:
    """Write a backup with the manifest of the backup `b` except for `changes`, and with these members."""
    with Path("b").open("rb") as backup:
        manifest, _ = read_archive(backup, None)
    document = {name: getattr(manifest, name) for name in manifest.__struct_fields__} | changes
    with path.open("wb") as file, writing_archive(file, None) as writer:
        writer.add("manifest.json", json.dumps(document).encode())
        for name, data in members.items():
            writer.add(name, data)


@pytest.fixture
def reject(environment: Settings, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """A function that writes such a backup, restores it, which must fail as damaged, and returns the message."""
    assert run(["backup", "b"]) == 0

    def reject(members: dict[str, bytes], **changes: Any) -> str:
        write_backup(Path("damaged"), members, **changes)
        lose_database(environment)
        capsys.readouterr()
        assert run(["restore", "damaged", "--json"]) == 1
        error = json.loads(capsys.readouterr().out)["error"]
        assert error["code"] == "backup_damaged", error
        return str(error["detail"])

    return reject


@pytest.mark.parametrize(
    "row", [b"5", b"null", b'{"task": 1}', b"[]", b'[{"a": 1}]', b"[" * 100_000], ids=lambda row: row.decode()[:12]
)
def test_a_row_that_is_no_list_of_values_is_damage(reject: Callable[..., str], row: bytes) -> None:
    """A row must be a list with a text, number, boolean or null for each column."""
    assert "The rows of task_runs in the backup cannot be read" in reject(
        {f"{_TABLE}/000001.jsonl": row}, tables={"task_runs": ["task"]}
    )


@pytest.mark.parametrize(
    ("columns", "row"),
    [(["task", "unknown"], ["a", "b"]), (["task"], [None]), (["task", "succeeded_at"], ["a", 2**70])],
    ids=["column", "null", "large"],
)
def test_rows_that_do_not_fit_the_table_are_damage(reject: Callable[..., str], columns: Any, row: Any) -> None:
    """Unknown columns, missing values and numbers that are too large are reported as damage."""
    assert "The rows of task_runs" in reject(
        {f"{_TABLE}/000001.jsonl": json.dumps(row).encode()}, tables={"task_runs": columns}
    )


def test_long_rows_are_damage(reject: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A row is read only up to a limit, because a small compressed backup can expand to gigabytes."""
    monkeypatch.setattr(tables, "_MAX_ROW_BYTES", 1000)
    row = json.dumps(["a" * 1000]).encode()
    assert "The rows of task_runs" in reject({f"{_TABLE}/000001.jsonl": row}, tables={"task_runs": ["task"]})


def test_long_rows_are_loaded_in_several_batches(
    environment: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The size of a batch is limited, not only its number of rows; all rows are loaded."""
    assert run(["backup", "b"]) == 0
    capsys.readouterr()
    monkeypatch.setattr(tables, "_MAX_BATCH_BYTES", 1)
    lose_database(environment)
    assert run(["restore", "b", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] > 1


@pytest.mark.parametrize(
    ("member", "limit"), [("manifest.json", "_MAX_MANIFEST_BYTES"), ("keys.env", "_MAX_KEYS_BYTES")]
)
def test_a_long_manifest_and_long_keys_are_damage(
    environment: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], member: str, limit: str
) -> None:
    """Both are read at once, so only up to a limit. The message names the member."""
    Path("passphrase").write_text("correct horse battery staple")
    options = ["--passphrase-file", "passphrase"]
    assert run(["backup", "b", "--with-keys", *options]) == 0
    monkeypatch.setattr(archive, limit, 10)
    lose_database(environment)
    capsys.readouterr()
    assert run(["restore", "b", *options]) == 1
    assert f"{member} in the backup has more than 10 bytes" in capsys.readouterr().err


def test_a_manifest_without_the_migrations_of_a_package_is_damage(reject: Callable[..., str]) -> None:
    """The message names the package whose tables cannot be created."""
    assert "which migrations of monitoring it has" in reject({}, revisions={"auth": "0001"})


@pytest.mark.parametrize("changes", [{"tables": 5}, {"tables": {"task_runs": [1]}}, {"revisions": []}, {"keys": "no"}])
def test_a_manifest_with_members_of_other_types_is_damage(reject: Callable[..., str], changes: dict[str, Any]) -> None:
    """Each member of the manifest must have the type that the release writes."""
    assert "The backup's content cannot be read" in reject({}, **changes)
