"""What a backup contains, and what is rejected; only on SQLite, because none of it depends on the database."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, event, text

from api.cli import run
from api.commands.backup.archive import KEYS, Manifest, read_archive, writing_archive
from api.commands.backup.contents import MIGRATIONS
from api.settings import Settings
from auth.login.data_keys import new_data_key
from auth.tokens.jws import generate_signing_key
from model.registry.files import FileRegistry
from monitoring.chains.signing import Signer, new_private_key
from tests.api.commands.records.databases import lose_database, on_database, read_rows
from tests.support.paths import ARTEFACT

Captured = pytest.CaptureFixture[str]
Fail = Callable[..., str]
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def passphrase(tmp_path: Path) -> str:
    """The option that names a file with a passphrase."""
    (tmp_path / "passphrase").write_text("correct horse battery\n")
    return "--passphrase-file=passphrase"


@pytest.fixture
def fail(environment: Settings, capsys: Captured) -> Fail:
    """A function that runs a command, which must fail, and returns its one line on standard error."""
    assert environment.ledger_key()

    def fail(*arguments: str) -> str:
        capsys.readouterr()
        assert run(list(arguments)) in (1, 2)
        error = capsys.readouterr().err
        assert error.count("\n") == 1, error
        return error

    return fail


def test_keys_are_included_only_when_encrypted(
    environment: Settings, fail: Fail, passphrase: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backup includes the keys only if it is encrypted; `restore --keys-to` writes them as lines of .env."""
    assert "--with-keys needs a passphrase" in fail("backup", "b", "--with-keys")
    data_key = new_data_key()
    monkeypatch.setenv("AUTH__DATA_KEY", data_key)
    monkeypatch.setenv("AUTH__SIGNING_KEY", generate_signing_key("ES256"))
    assert run(["backup", "b", "--with-keys", passphrase]) == 0
    assert environment.ledger_key().encode() not in Path("b").read_bytes()
    for name in ("AUTH__DATA_KEY", "AUTH__SIGNING_KEY", "LEDGER__SIGNING_KEY"):
        monkeypatch.delenv(name)
    lose_database(environment)
    capsys.readouterr()
    assert run(["restore", "b", passphrase, "--keys-to", "keys.env"]) == 0
    assert "Ledger: 6 entries, unchanged." in capsys.readouterr().out
    lines = Path("keys.env").read_text()
    assert f"AUTH__DATA_KEY={data_key}\n" in lines
    assert Path("keys.env").stat().st_mode & 0o077 == 0


def test_the_rows_are_restored_last(
    environment: Settings, passphrase: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """When the rows are committed, keys and models are in place: a restore that is killed before can be repeated."""
    FileRegistry(tmp_path / "models").add(ARTEFACT)
    monkeypatch.setenv("MODEL__REGISTRY", f"file://{tmp_path}/models")
    assert run(["backup", "b", "--with-keys", passphrase]) == 0
    lose_database(environment)
    restored = FileRegistry(tmp_path / "restored")
    monkeypatch.setenv("MODEL__REGISTRY", f"file://{restored.root}")
    found = list[tuple[bool, list[str]]]()

    def look(_: Connection) -> None:
        found.append((Path("keys.env").exists(), list(restored.list_models())))

    event.listen(Engine, "commit", look)
    try:
        assert run(["restore", "b", passphrase, "--keys-to", "keys.env"]) == 0
    finally:
        event.remove(Engine, "commit", look)
    assert found[0] == (True, ["efficientnetb0"])


def test_an_unusable_file_for_keys_is_rejected_first(environment: Settings, fail: Fail, passphrase: str) -> None:
    """A restore fails first if the file for the keys exists; a failed restore leaves no such file."""
    assert run(["backup", "b", "--with-keys", passphrase]) == 0
    assert "already has tables" in fail("restore", "b", passphrase, "--keys-to", "keys.env")
    assert sorted(path.name for path in Path().glob("*keys.env*")) == []
    lose_database(environment)
    Path("keys.env").write_text("mine")
    assert "keys.env already exists" in fail("restore", "b", passphrase, "--keys-to", "keys.env")
    assert Path("keys.env").read_text() == "mine"
    assert run(["restore", "b", passphrase, "--keys-to", "new.env"]) == 0


def test_a_gateway_with_another_key_verifies_the_ledger(
    environment: Settings, passphrase: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restore verifies the ledger with the key in the backup, even if another key is configured."""
    assert run(["backup", "b", "--with-keys", passphrase]) == 0
    lose_database(environment)
    monkeypatch.setenv("LEDGER__SIGNING_KEY", new_private_key())
    capsys.readouterr()
    assert run(["restore", "b", passphrase]) == 0
    assert "Ledger: 6 entries, unchanged." in capsys.readouterr().out


def test_all_keys_of_the_machine_are_included(
    environment: Settings, passphrase: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restore returns the image key and the ledger's earlier public keys, and verifies the ledger with them."""
    earlier = Signer(environment.ledger_key()).public_key
    images = base64.b64encode(bytes(32)).decode()
    monkeypatch.setenv("LEDGER__SIGNING_KEY", new_private_key())
    monkeypatch.setenv("LEDGER__PUBLIC_KEYS", earlier)
    monkeypatch.setenv("IMAGES__KEY", images)
    assert run(["backup", "b", "--with-keys", passphrase]) == 0
    monkeypatch.delenv("LEDGER__PUBLIC_KEYS")
    lose_database(environment)
    capsys.readouterr()
    assert run(["restore", "b", passphrase, "--keys-to", "keys.env"]) == 0
    assert "Ledger: 6 entries, unchanged." in capsys.readouterr().out
    assert {f"LEDGER__PUBLIC_KEYS={earlier}", f"IMAGES__KEY={images}"} <= set(Path("keys.env").read_text().splitlines())


@pytest.mark.parametrize(
    ("announced", "problem"), [(True, "contains keys but is not encrypted"), (False, "'keys.env'")]
)
def test_keys_that_are_not_encrypted_are_rejected(
    environment: Settings, fail: Fail, announced: bool, problem: str
) -> None:
    """A restore rejects keys in an unencrypted backup, because anyone could have put them there."""
    manifest = Manifest("0.1.0", "2026-11-26T00:00:00+00:00", dict.fromkeys(MIGRATIONS, "head"), {}, {}, announced)
    with Path("b").open("wb") as file, writing_archive(file, None) as writer:
        writer.add_manifest(manifest)
        writer.add(KEYS, f"LEDGER__SIGNING_KEY={new_private_key()}\n".encode())
    lose_database(environment)
    assert problem in fail("restore", "b")


def test_a_weak_passphrase_is_rejected(fail: Fail) -> None:
    """A common passphrase is rejected, and no file is left."""
    Path("weak").write_text("password\n")
    assert "passphrase is too weak" in fail("backup", "b", "--passphrase-file", "weak")
    assert not Path("b").exists()


def test_a_damaged_backup_changes_nothing(environment: Settings, fail: Fail, passphrase: str) -> None:
    """A truncated backup and a wrong passphrase leave the target empty, so that a restore can follow."""
    assert run(["backup", "b", passphrase]) == 0
    lose_database(environment)
    Path("cut").write_bytes(Path("b").read_bytes()[:-5])
    assert "is incomplete" in fail("restore", "cut", passphrase)
    Path("other").write_text("another passphrase")
    assert "passphrase is wrong" in fail("restore", "b", "--passphrase-file", "other")
    assert run(["restore", "b", passphrase]) == 0


def test_a_newer_backup_is_rejected(environment: Settings, fail: Fail) -> None:
    """A backup with migrations that this release does not know is rejected, and the target stays empty."""
    assert run(["backup", "b"]) == 0
    manifest = Manifest("9.0", "2026-11-26T00:00:00+00:00", dict.fromkeys(MIGRATIONS, "9999"), {}, {}, False)
    with Path("new").open("wb") as file, writing_archive(file, None) as writer:
        writer.add_manifest(manifest)
    lose_database(environment)
    assert "newer release" in fail("restore", "new")
    assert run(["restore", "b"]) == 0


@pytest.mark.parametrize("member", ["notes.txt", "tables/unknown/0.jsonl", "registry/unknown/state.json", KEYS])
def test_an_unknown_member_is_rejected(environment: Settings, fail: Fail, member: str) -> None:
    """A backup with a member that its manifest does not announce is rejected, and the target stays empty."""
    assert run(["backup", "b"]) == 0
    with Path("b").open("rb") as backup, Path("more").open("wb") as file, writing_archive(file, None) as writer:
        manifest, members = read_archive(backup, None)
        writer.add_manifest(manifest)
        for name, content in members:
            writer.add(name, content.read())
        writer.add(member, b"")
    lose_database(environment)
    assert f"contains {member!r}, which this release does not support" in fail("restore", "more")
    assert run(["restore", "b"]) == 0


def test_a_database_in_use_is_not_overwritten(environment: Settings, fail: Fail) -> None:
    """A restore into a database that has tables fails and changes nothing."""
    assert run(["backup", "b"]) == 0
    rows = read_rows(environment)
    assert "already has tables" in fail("restore", "b")
    assert read_rows(environment) == rows


def test_a_changed_ledger_is_found(environment: Settings, fail: Fail) -> None:
    """A restore reports that the ledger was changed before the backup."""
    change = text("UPDATE ledger_payloads SET status = 500 WHERE seq = 1")
    on_database(environment, lambda connection: connection.execute(change))
    assert run(["backup", "b"]) == 0
    lose_database(environment)
    assert "the ledger was changed before" in fail("restore", "b")


def test_the_registry_is_included(
    environment: Settings, capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restore returns the registry's versions and aliases, hard-linked files included, and skips existing models."""
    registry = FileRegistry(tmp_path / "models")
    added = registry.add(ARTEFACT)
    registry.move_aliases("efficientnetb0", {"production": added.version}, who="ana", why="test")
    state = registry.read("efficientnetb0")
    for path in registry.find_folder("efficientnetb0", added.version).glob("*.json"):
        os.link(path, path.with_name(f"{path.name}.link"))  # as deduplicated files are
    monkeypatch.setenv("MODEL__REGISTRY", f"file://{registry.root}")
    assert run(["backup", "b"]) == 0
    lose_database(environment)
    capsys.readouterr()
    assert run(["restore", "b"]) == 0
    assert "Models left out, because the registry already has them: efficientnetb0." in capsys.readouterr().out
    lose_database(environment)
    monkeypatch.setenv("MODEL__REGISTRY", f"file://{tmp_path}/restored")
    assert run(["restore", "b"]) == 0
    restored = FileRegistry(tmp_path / "restored")
    assert restored.read("efficientnetb0") == state
    folder = restored.find_folder("efficientnetb0", added.version)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        path.name: path.read_bytes() for path in registry.find_folder("efficientnetb0", added.version).iterdir()
    }
