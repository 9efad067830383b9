"""`/v1/models`: the registry over HTTP."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.cli import run
from api.settings import Settings
from api.settings.model import ModelSettings
from model.registry.files import FileRegistry
from tests.model.registry.versions import MODEL, write_version
from tests.support.logs import discarded_logging
from tests.support.polling import wait_until

Bearer = dict[str, str]
Move = Callable[..., Any]


@pytest.fixture
def registry(tmp_path: Path) -> FileRegistry:
    registry = FileRegistry(tmp_path / "registry")
    for version in ("1.0", "1.1"):
        registry.add(write_version(tmp_path, version))
    return registry


@pytest.fixture
def settings(settings: Settings, registry: FileRegistry, tmp_path: Path) -> Settings:
    assert registry.list_models()
    model = ModelSettings(url="stub://", workers=2, registry=f"file://{tmp_path}/registry")
    return settings.model_copy(update={"model": model})


@pytest.fixture
def move(client: TestClient, operator: Bearer) -> Move:
    """Send a promotion; returns the response."""

    def move(version: str, alias: str = "production", **members: str) -> Any:
        body = {"version": version, "why": f"to {version}", **members}
        return client.post(f"/v1/models/{MODEL}/aliases/{alias}", json=body, headers=operator)

    return move


def test_an_operator_promotes_and_rolls_back(client: TestClient, operator: Bearer, move: Move) -> None:
    """Each move returns the changed aliases, and is in the history, newest first, with its proof in the ledger."""
    assert move("1.0").json() == {"model": MODEL, "aliases": {"production": {"from": None, "to": "1.0"}}}
    moved = move("1.1", expect="1.0").json()["aliases"]
    assert moved == {"production": {"from": "1.0", "to": "1.1"}, "previous": {"from": None, "to": "1.0"}}
    assert move("@previous", why="worse").json()["aliases"]["production"] == {"from": "1.1", "to": "1.0"}
    subject = client.get("/v1/me", headers=operator).json()["subject"]
    page = client.get(f"/v1/models/{MODEL}/history", params={"limit": 2}, headers=operator).json()
    assert [(entry["who"], entry["why"], entry["problem"]) for entry in page["entries"]] == [
        (subject, "worse", None),
        (subject, "to 1.1", None),
    ]
    assert page["entries"][0]["aliases"]["production"] == {"from": "1.1", "to": "1.0"}
    assert len(page["entries"][0]["proof"]["hash"]) == 64
    assert page["entries"][0]["at"].endswith("Z")
    rest = client.get(f"/v1/models/{MODEL}/history", params={"cursor": page["next"]}, headers=operator).json()
    assert ([entry["why"] for entry in rest["entries"]], rest["next"]) == (["to 1.0"], None)


def test_the_registry_is_shown(client: TestClient, operator: Bearer, move: Move, registry: FileRegistry) -> None:
    """Models, versions, aliases, tags, classes and files are listed."""
    move("1.1")
    registry.tag(MODEL, "1.1", {"stage": "tested"})
    assert client.get("/v1/models", headers=operator).json() == [
        {"name": MODEL, "versions": 2, "aliases": {"production": "1.1"}}
    ]
    versions = client.get(f"/v1/models/{MODEL}", headers=operator).json()["versions"]
    assert [(each["version"], each["aliases"], each["tags"]) for each in versions] == [
        ("1.0", [], {}),
        ("1.1", ["production"], {"stage": "tested"}),
    ]
    version = client.get(f"/v1/models/{MODEL}/versions/1.1", headers=operator).json()
    assert (version["classes"], version["files"]) == (["beach", "forest"], {"model.onnx": 7})
    assert version["added_at"].endswith("Z")


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v1/models/other", 404, "unknown_model"),
        ("/v1/models/other/history", 404, "unknown_model"),
        (f"/v1/models/{MODEL}/versions/9.9", 404, "unknown_version"),
        ("/v1/models/.hidden", 422, "invalid_request"),
        (f"/v1/models/{MODEL}/versions/..%2F1.0", 404, "not_found"),
    ],
)
def test_unknown_names_have_codes(client: TestClient, operator: Bearer, path: str, status: int, code: str) -> None:
    """An unknown model or version is a 404 with its own code, and no path leads out of the registry."""
    response = client.get(path, headers=operator)
    assert (response.status_code, response.json()["code"]) == (status, code)


def test_rejected_moves_change_nothing(move: Move, registry: FileRegistry, tmp_path: Path) -> None:
    """Each rejected move has a status and a code, reveals no path of the server, and leaves the registry unchanged."""
    move("1.0")
    (registry.find_folder(MODEL, "1.1") / "model.onnx").write_bytes(b"A graph")
    before = registry.read(MODEL)
    for response, expected in (
        (move("1.0"), (409, "alias_unchanged")),
        (move("1.1", expect="1.1"), (409, "alias_moved")),
        (move("1.1"), (409, "version_rejected")),
        (move("9.9"), (404, "unknown_version")),
        (move("@candidate"), (404, "unknown_alias")),
        (move("1.1", why=""), (422, "invalid_request")),
        (move("1.1", why="x" * 501), (422, "invalid_request")),
        (move("1.1", other="x"), (422, "invalid_request")),
    ):
        assert (response.status_code, response.json()["code"]) == expected
        assert str(tmp_path) not in response.text
    assert registry.read(MODEL) == before


def test_a_move_that_the_audit_log_cannot_record_does_not_happen(
    client: TestClient, operator: Bearer, move: Move, registry: FileRegistry, tmp_path: Path
) -> None:
    """While the audit log cannot be written, no alias moves; the repeated request succeeds, and has one entry."""
    with closing(sqlite3.connect(tmp_path / "gateway.db")) as connection:
        connection.execute("ALTER TABLE audit_events RENAME TO elsewhere")
        failed = move("1.0")
        assert (failed.status_code, failed.json()["code"]) == (503, "audit_unavailable")
        assert registry.read(MODEL).aliases == {}
        connection.execute("ALTER TABLE elsewhere RENAME TO audit_events")
    assert move("1.0").status_code == 200
    entries = client.get("/v1/audit?event=model&outcome=promoted", headers=operator).json()["entries"]
    assert [entry["detail"] for entry in entries] == [{"alias": "production", "from": "", "to": "1.0", "why": "to 1.0"}]


def test_clients_neither_see_nor_move_models(client: TestClient, bearer: Bearer) -> None:
    """Without the scopes `models:read` and `models:write`, reading and moving models is a 403."""
    assert client.get("/v1/models", headers=bearer).status_code == 403
    body = {"version": "1.1", "why": "x"}
    response = client.post(f"/v1/models/{MODEL}/aliases/production", json=body, headers=bearer)
    assert (response.status_code, response.json()["code"]) == (403, "insufficient_scope")
    assert client.get("/v1/models").status_code == 401


def test_a_gateway_without_a_registry_says_so(
    make_client: Callable[..., TestClient], log_in: Callable[..., Bearer], settings: Settings
) -> None:
    """Without a registry, every route is a 404 with the code `registry_missing`."""
    client = make_client(model=settings.model.model_copy(update={"registry": None}))
    operator = log_in(client, "olga")
    for path in ("", f"/{MODEL}", f"/{MODEL}/history", f"/{MODEL}/versions/1.0"):
        response = client.get(f"/v1/models{path}", headers=operator)
        assert (response.status_code, response.json()["code"]) == (404, "registry_missing")


def test_moves_of_a_gateway_and_of_commands_are_one_history(
    client: TestClient,
    operator: Bearer,
    move: Move,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A command and a running gateway move the same alias; each shows the moves of both."""
    with discarded_logging():
        move("1.0")
        key = settings.ledger.signing_key
        assert key is not None
        assert settings.model.registry is not None
        monkeypatch.setenv("DATABASE_URL", settings.database_url.get_secret_value())
        monkeypatch.setenv("LEDGER__SIGNING_KEY", key.get_secret_value())
        monkeypatch.setenv("MODEL__REGISTRY", settings.model.registry)
        assert run(["models", "promote", MODEL, "1.1", "--why", "by command"]) == 0
        move("1.0", why="by request")
        capsys.readouterr()
        assert run(["models", "history", MODEL, "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert [period["why"] for period in document["periods"]] == ["to 1.0", "by command", "by request"]
        entries = client.get(f"/v1/models/{MODEL}/history", headers=operator).json()["entries"]
        assert [entry["why"] for entry in entries] == ["by request", "by command", "to 1.0"]


def test_a_gateway_records_interrupted_moves_at_its_start(
    make_client: Callable[..., TestClient], log_in: Callable[..., Bearer], registry: FileRegistry
) -> None:
    """A move whose process was killed before it was recorded is in the ledger after the next start."""
    registry.move_aliases(MODEL, {"production": "1.1"}, who="cli:olga", why="killed")
    client = make_client()
    operator = log_in(client, "olga")
    wait_until(lambda: registry.read(MODEL).unrecorded == ())
    (entry,) = client.get(f"/v1/models/{MODEL}/history", headers=operator).json()["entries"]
    assert (entry["who"], entry["why"]) == ("cli:olga", "killed")


def test_a_changed_entry_is_marked(client: TestClient, operator: Bearer, move: Move, settings: Settings) -> None:
    """The history marks an entry whose document does not match its commitment."""
    move("1.0")
    with sqlite3.connect(settings.database_url.get_secret_value().removeprefix("sqlite:///")) as connection:
        connection.execute("UPDATE ledger_payloads SET document = replace(document, 'to 1.0', 'to 1.9')")
    connection.close()
    (entry,) = client.get(f"/v1/models/{MODEL}/history", headers=operator).json()["entries"]
    assert "does not match the entry's commitment" in entry["problem"]


def test_moves_are_in_the_audit_log(client: TestClient, operator: Bearer, move: Move) -> None:
    """A promotion is recorded with its alias, versions and reason, a rejected one with its code."""
    move("1.0")
    move("1.0")

    def read_events() -> list[dict[str, Any]]:
        entries = client.get("/v1/audit", params={"event": "model"}, headers=operator).json()["entries"]
        return [{"outcome": entry["outcome"], **entry["detail"]} for entry in entries]

    wait_until(lambda: len(read_events()) == 2)
    promoted = {"outcome": "promoted", "alias": "production", "from": "", "to": "1.0", "why": "to 1.0"}
    refused = {"outcome": "refused", "alias": "production", "code": "alias_unchanged"}
    assert sorted(read_events(), key=lambda event: event["outcome"]) == [promoted, refused]
