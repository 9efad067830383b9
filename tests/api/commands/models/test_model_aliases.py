"""`atalaya models add`, `list`, `show`, `promote`, `rollback`, `tag` and `history`, on both databases."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from api.cli import run
from api.commands.database import command_actor
from model.registry.files import FileRegistry
from monitoring.chains.signing import Signer, new_private_key
from monitoring.ledger.upkeep.pruning import Pruner
from storage.engine import open_blocking_engine
from storage.transactions import WRITING
from tests.model.registry.crashes import FORK
from tests.model.registry.versions import MODEL, write_version
from tests.model.signing.forging import new_key, private_pem
from tests.monitoring.ledger.ledgers import execute

Atalaya = Callable[..., tuple[int, str, str]]
LEDGER_KEY = new_private_key()


@pytest.fixture
def registry(tmp_path: Path) -> FileRegistry:
    return FileRegistry(tmp_path / "registry")


@pytest.fixture
def atalaya(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    registry: FileRegistry,
    migrated_url: str,
    capsys: pytest.CaptureFixture[str],
) -> Atalaya:
    """Run a command with a registry of the versions 1.0, 1.1 and 1.2; returns status, standard output and error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", migrated_url)
    monkeypatch.setenv("LEDGER__SIGNING_KEY", LEDGER_KEY)
    monkeypatch.setenv("MODEL__REGISTRY", f"file://{tmp_path}/registry")
    for version in ("1.0", "1.1", "1.2"):
        registry.add(write_version(tmp_path, version))

    def atalaya(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = run(list(arguments))
        return (status, *capsys.readouterr())

    return atalaya


def run_json(atalaya: Atalaya, *arguments: str) -> Any:
    status, out, err = atalaya(*arguments, "--json")
    assert status == 0, err
    return json.loads(out)


def test_the_steps_from_a_version_to_production_and_back(atalaya: Atalaya, database_url: str) -> None:
    """The ledger, the history and the audit log record promotions and rollbacks: who, when, from, to and why."""
    before = datetime.now(UTC)
    assert run_json(atalaya, "models", "promote", MODEL, "1.0", "--why", "the first")["aliases"] == {
        "production": {"from": None, "to": "1.0"}
    }
    status, out, _ = atalaya("models", "promote", MODEL, "1.1", "--why", "better", "--expect", "1.0")
    assert (status, out.splitlines()) == (
        0,
        ["production of tiny now points to 1.1 (before: 1.0).", "previous of tiny now points to 1.0."],
    )
    between = datetime.now(UTC)
    roll_back = ("models", "rollback", MODEL, "--expect", "1.1", "--why", "it confuses beaches")
    assert [atalaya(*roll_back)[0] for _ in range(2)] == [0, 1]
    document = run_json(atalaya, "models", "history", MODEL)
    rows = [(period["version"], period["who"], period["why"]) for period in document["periods"]]
    who = command_actor()
    assert rows == [("1.0", who, "the first"), ("1.1", who, "better"), ("1.0", who, "it confuses beaches")]
    assert (document["verified"], document["notes"], document["problems"]) == (True, [], [])
    table = atalaya("models", "history", MODEL)[1]
    assert "it confuses beaches" in table
    assert "since (UTC)" in table
    for moment, expected in (
        (before - timedelta(hours=1), "no record"),
        (between, f"1.1, since {document['periods'][1]['since'][:10]}"),
        (datetime.now(UTC), f"decided by {who}: it confuses beaches"),
    ):
        status, out, _ = atalaya("models", "history", MODEL, "--at", moment.isoformat())
        assert (status, expected in out) == (0, True), out
    assert run_json(atalaya, "ledger", "verify")["entries"] == 3
    events = run_json(atalaya, "audit")
    moves = [(event["outcome"], event["detail"]["to"]) for event in events if event["event"] == "model"]
    assert sorted(moves) == [("promoted", "1.0"), ("promoted", "1.1"), ("rolled_back", "1.0")]
    assert database_url


def test_list_and_show(atalaya: Atalaya, registry: FileRegistry) -> None:
    """The tables name versions, aliases and tags; a version is shown with its classes and files."""
    atalaya("models", "promote", MODEL, "1.1", "--why", "a test")
    tagged = run_json(atalaya, "models", "tag", MODEL, "@production", "stage=tested", "owner=maps")
    assert tagged == {"model": MODEL, "version": "1.1", "tags": {"stage": "tested", "owner": "maps"}}
    assert atalaya("models", "tag", MODEL, "1.1", "owner=")[1] == "tiny 1.1: stage=tested\n"
    assert "production=1.1" in atalaya("models", "list")[1]
    assert run_json(atalaya, "models", "list") == [{"name": MODEL, "versions": 3, "aliases": {"production": "1.1"}}]
    shown = run_json(atalaya, "models", "show", MODEL)
    assert run_json(atalaya, "models", "show", MODEL, "1.1")["added_at"] == shown["versions"][1]["added_at"]
    assert shown["versions"][1]["added_at"].endswith("Z")
    added = shown["versions"][1]["added_at"][:19].replace("T", " ")
    assert all(added in atalaya("models", "show", MODEL, *version)[1] for version in ([], ["1.1"]))
    assert [version["aliases"] for version in shown["versions"]] == [[], ["production"], []]
    assert "stage=tested" in atalaya("models", "show", MODEL)[1]
    version = run_json(atalaya, "models", "show", MODEL, "@production")
    assert (version["version"], version["classes"]) == ("1.1", ["beach", "forest"])
    assert version["files"] == {"model.onnx": 7}
    assert "2: beach, forest" in atalaya("models", "show", MODEL, "1.1")[1]
    assert registry.read(MODEL).find("1.1").tags == {"stage": "tested"}


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("promote", MODEL, "1.0", "--why", "again"), "'production' points to tiny 1.0 already"),
        (
            ("promote", MODEL, "1.1", "--why", "x", "--expect", "1.2"),
            "'production' points to 1.0, and not 1.2 as expected",
        ),
        (("promote", MODEL, "9.9", "--why", "x"), "There is no version '9.9'. These exist: 1.0, 1.1, 1.2."),
        (("promote", "other", "1.0", "--why", "x"), "There is no model 'other'"),
        (("promote", MODEL, "../1", "--why", "x"), "There is no version '../1'"),
        (("promote", MODEL, "1.1", "--why", "x", "--alias", "a/b"), "'a/b' is not a name"),
        (("promote", MODEL, "1.2", "--why", "x"), "model.onnx differs from its manifest"),
        (
            ("rollback", MODEL, "--why", "x"),
            "tiny has no alias 'previous', so there is no previous version to roll back to",
        ),
        (("tag", MODEL, "9.9", "a=b"), "There is no version '9.9'"),
        (("show", "other"), "There is no model 'other'"),
        (("history", "other"), "There is no model 'other'"),
        (("add", "artefact-1.0"), "tiny 1.0 already exists"),
        (("verify", MODEL, "1.1"), "is not signed"),
    ],
)
def test_a_rejection_is_one_line_and_changes_nothing(
    atalaya: Atalaya, registry: FileRegistry, arguments: tuple[str, ...], problem: str
) -> None:
    """An invalid command exits with 1, prints one line that names the problem, and changes nothing."""
    atalaya("models", "promote", MODEL, "1.0", "--why", "a test")
    (registry.find_folder(MODEL, "1.2") / "model.onnx").write_bytes(b"A graph")
    before = registry.read(MODEL)
    status, _, err = atalaya("models", *arguments)
    assert (status, err.count("\n")) == (1, 1), err
    assert problem in err
    assert registry.read(MODEL) == before
    assert run_json(atalaya, "ledger", "verify")["entries"] == 1


def test_a_decision_needs_a_reason(atalaya: Atalaya) -> None:
    """A promotion without a reason, or with a blank or overlong one, is a usage error."""
    for reason in ((), ("--why", " "), ("--why", "x" * 501)):
        assert atalaya("models", "promote", MODEL, "1.0", *reason)[0] == 2


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE ledger_payloads SET document = replace(document, 'the first', 'the fi2st')",
        "UPDATE ledger_payloads SET principal = 'model:tinz'",
        "UPDATE ledger_payloads SET status = 1",
        "UPDATE ledger_checkpoints SET at = '2020-01-01T00:00:00.000000Z'",
    ],
)
def test_one_flipped_byte_is_found(atalaya: Atalaya, database_url: str, change: str) -> None:
    """`models history` prints the history of a changed ledger, but warns that it may be wrong and fails."""
    atalaya("models", "promote", MODEL, "1.0", "--why", "the first")
    assert atalaya("models", "history", MODEL)[0] == 0
    execute(database_url, change)
    status, out, err = atalaya("models", "history", MODEL)
    assert status == 1
    assert "The ledger was changed, so this history may be wrong." in err
    assert out
    status, out, _ = atalaya("models", "history", MODEL, "--json")
    assert (status, json.loads(out)["verified"]) == (1, False)


def test_a_history_without_its_beginning_says_so(atalaya: Atalaya, database_url: str) -> None:
    """After the first move is pruned, the history infers the earlier version from the next move and notes the gap."""
    for version in ("1.0", "1.1"):
        atalaya("models", "promote", MODEL, version, "--why", f"to {version}")
    (_, second) = run_json(atalaya, "models", "history", MODEL)["periods"]
    assert second["since"].endswith("Z")
    engine = open_blocking_engine(database_url, 10).execution_options(**WRITING)
    pruned = Pruner(engine, Signer(LEDGER_KEY), datetime.now(UTC)).prune(datetime.fromisoformat(second["since"]))
    assert sum(pruned) == 1
    engine.dispose()
    document = run_json(atalaya, "models", "history", MODEL)
    assert [(period["version"], period["since"]) for period in document["periods"]] == [
        ("1.0", None),
        ("1.1", second["since"]),
    ]
    assert document["notes"] == ["Old entries of the ledger were pruned, so earlier moves may be missing."]
    assert (
        "1.0, but the ledger does not record since when"
        in atalaya("models", "history", MODEL, "--at", "2026-01-01T10:00Z")[1]
    )


def test_moves_past_the_ledger_are_noted(atalaya: Atalaya, registry: FileRegistry, tmp_path: Path) -> None:
    """The history notes an unrecorded move, which the next move records, and a registry that was edited by hand."""
    atalaya("models", "promote", MODEL, "1.0", "--why", "first")
    registry.move_aliases(MODEL, {"production": "1.1"}, who="cli:olga", why="killed")
    (note,) = run_json(atalaya, "models", "history", MODEL)["notes"]
    assert note.startswith("1 move of tiny is not recorded yet, because recording was interrupted. It will be ")
    atalaya("models", "promote", MODEL, "1.2", "--why", "third")
    document = run_json(atalaya, "models", "history", MODEL)
    assert [period["why"] for period in document["periods"]] == ["first", "killed", "third"]
    state = tmp_path / "registry" / MODEL / "state.json"
    state.write_text(state.read_text().replace('"production": "1.2"', '"production": "1.0"'))
    (note,) = run_json(atalaya, "models", "history", MODEL)["notes"]
    assert "points to 1.0 now, but the record ends with 1.2" in note


def test_a_move_that_the_ledger_cannot_record_is_in_the_audit_log(atalaya: Atalaya, database_url: str) -> None:
    """When the ledger cannot record a move, the command says so and fails, and the audit log has it as unrecorded."""
    atalaya("models", "promote", MODEL, "1.0", "--why", "first")
    execute(database_url, "ALTER TABLE ledger_payloads RENAME TO away")
    status, _, err = atalaya("models", "promote", MODEL, "1.1", "--why", "better")
    assert (status, "production, previous of tiny was moved, but the ledger could not record it" in err) == (1, True)
    execute(database_url, "ALTER TABLE away RENAME TO ledger_payloads")
    newest = next(event for event in run_json(atalaya, "audit") if event["outcome"] == "unrecorded")
    assert newest["detail"] == {"alias": "production", "why": "better", "code": "move_unrecorded"}


@pytest.mark.parametrize("command", [("promote", MODEL, "1.2"), ("rollback", MODEL)])
def test_no_alias_moves_without_its_audit_entry(
    atalaya: Atalaya, registry: FileRegistry, database_url: str, command: tuple[str, ...]
) -> None:
    """When the audit log cannot be written, the command fails before the alias moves."""
    registry.move_aliases(MODEL, {"production": "1.1", "previous": "1.0"}, who="cli:olga", why="first")
    execute(database_url, "ALTER TABLE audit_events RENAME TO away")
    assert "audit log" in atalaya("models", *command, "--why", "better")[2]
    assert registry.read(MODEL).aliases == {"production": "1.1", "previous": "1.0"}


def _promote(version: str) -> None:
    raise SystemExit(run(["models", "promote", MODEL, version, "--why", f"to {version}", "--expect", "1.0"]))


def test_two_commands_at_once_make_one_promotion(atalaya: Atalaya, registry: FileRegistry) -> None:
    """Of two concurrent promotions that expect the same version, one fails; the ledger has the other and verifies."""
    atalaya("models", "promote", MODEL, "1.0", "--why", "a test")
    commands = [FORK.Process(target=_promote, args=(version,)) for version in ("1.1", "1.2")]
    for command in commands:
        command.start()
    for command in commands:
        command.join()
    assert sorted(command.exitcode or 0 for command in commands) == [0, 1]
    document = run_json(atalaya, "models", "history", MODEL)
    assert [period["version"] for period in document["periods"]] == [
        "1.0",
        registry.read(MODEL).find_alias("production"),
    ]
    assert (document["verified"], document["notes"]) == (True, [])


def test_an_artefact_becomes_a_version(atalaya: Atalaya, registry: FileRegistry, tmp_path: Path) -> None:
    """`add` copies an artefact folder; with MODEL__VERIFY_KEY set, `add` and `promote` reject unsigned artefacts."""
    key = new_key()
    (tmp_path / "key.pem").write_bytes(private_pem(key))
    write_version(tmp_path, "2.0")
    added = run_json(atalaya, "models", "add", "artefact-2.0")
    assert added == {"model": "tiny-v2.0", "folder": str(registry.find_folder(MODEL, "2.0")), "absent": []}
    write_version(tmp_path, "2.1")
    signed = run_json(atalaya, "models", "sign", "artefact-2.1", "--key", "key.pem")
    assert atalaya("models", "add", "artefact-2.1")[0] == 0
    (tmp_path / ".env").write_text(f"MODEL__VERIFY_KEY={signed['verify_key']}\n")
    assert run_json(atalaya, "models", "verify", MODEL, "2.1")["files"].keys() == {"model.onnx", "manifest.json"}
    write_version(tmp_path, "2.2")
    for refused in (("add", "artefact-2.2"), ("promote", MODEL, "2.0", "--why", "unsigned")):
        assert "is not signed" in atalaya("models", *refused)[2]
    assert atalaya("models", "promote", MODEL, "2.1", "--why", "signed")[0] == 0


def test_help_lists_the_steps(atalaya: Atalaya) -> None:
    """`atalaya models --help` shows the commands that bring a file into production and roll it back."""
    status, out, _ = atalaya("models", "--help")
    assert status == 0
    for command in ("import FILE", "promote NAME 1.2", "history NAME --at", "rollback NAME", "MODEL__REGISTRY"):
        assert command in out
    assert "\n    atalaya models promote" in out


def test_a_registry_is_needed(atalaya: Atalaya, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without MODEL__REGISTRY each command fails and names the setting."""
    monkeypatch.delenv("MODEL__REGISTRY")
    for arguments in (("list",), ("show", MODEL), ("promote", MODEL, "1.0", "--why", "x"), ("add", "artefact-1.0")):
        status, _, err = atalaya("models", *arguments)
        assert (status, "MODEL__REGISTRY is not set" in err) == (1, True), err
