"""Moves of an alias cannot be hidden, and cannot put an untrusted version into service: T55 and T56."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from model.registry.files import FileRegistry
from model.signing.folder import sign_folder
from model.signing.keys import encode_public_key
from tests.model.registry.versions import MODEL, write_version
from tests.model.signing.forging import new_key
from tests.support.gateway import Gateway, make_gateway

Attack = Callable[[Gateway, FileRegistry], None]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> FileRegistry:
    return FileRegistry(tmp_path_factory.mktemp("registry"))


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, registry: FileRegistry) -> Iterator[Gateway]:
    """A gateway that requires signatures, whose registry has 1.0, 1.1 and, signed with another key, 1.2."""
    key, folder = new_key(), tmp_path_factory.mktemp("artefacts")
    for version, signer in (("1.0", key), ("1.1", key), ("1.2", new_key())):
        sign_folder(artefact := write_version(folder, version), signer)
        registry.add(artefact)
    gateway = make_gateway(
        tmp_path_factory.mktemp("gateway"),
        MODEL__URL="stub://",
        MODEL__REGISTRY=f"file://{registry.root}",
        MODEL__VERIFY_KEY=encode_public_key(key.public_key()),
    )
    gateway.start()
    yield gateway
    gateway.stop()


def move(gateway: Gateway, version: str, user: str = "olga", alias: str = "production") -> httpx.Response:
    path = f"/v1/models/{MODEL}/aliases/{alias}"
    return gateway.client(user).post(path, json={"version": version, "why": "a test"})


def read_history(gateway: Gateway) -> tuple[int, dict[str, Any]]:
    read = gateway.run("models", "history", MODEL, "--json")
    return read.returncode, json.loads(read.stdout)


def execute(gateway: Gateway, statement: str) -> None:
    """Change the database behind the gateway's back."""
    with closing(sqlite3.connect(gateway.database_path)) as connection, connection:
        connection.execute(statement)


def copy_databases(gateway: Gateway, registry: FileRegistry, folder: Path) -> tuple[Gateway, FileRegistry]:
    """Return a copy of the gateway, which is not started, and one of its registry."""
    copied = FileRegistry(shutil.copytree(registry.root, folder / "registry"))
    path = folder / "gateway.db"
    path.touch(mode=0o600)
    with closing(sqlite3.connect(gateway.database_path)) as source, closing(sqlite3.connect(path)) as target:
        source.backup(target)
    return gateway.with_settings(DATABASE_URL=f"sqlite:///{path}", MODEL__REGISTRY=f"file://{copied.root}"), copied


def blame_another(gateway: Gateway, _: FileRegistry) -> None:
    """Make the entries name another operator."""
    execute(gateway, 'UPDATE ledger_payloads SET document = replace(document, \'"who":"\', \'"who":"x\')')


def remove_the_entry(gateway: Gateway, _: FileRegistry) -> None:
    """Delete the contents of the ledger's entries about the moves."""
    execute(gateway, f"DELETE FROM ledger_payloads WHERE principal = 'model:{MODEL}'")  # noqa: S608


def move_by_hand(_: Gateway, registry: FileRegistry) -> None:
    """Write another version into the registry's state, without a recorded decision."""
    state = registry.root / MODEL / "state.json"
    document = json.loads(state.read_text())
    state.write_text(json.dumps({**document, "aliases": {**document["aliases"], "production": "1.2"}}))


@pytest.mark.parametrize(("attack", "status"), [(blame_another, 1), (remove_the_entry, 1), (move_by_hand, 0)])
def test_a_decision_cannot_be_hidden(
    gateway: Gateway, registry: FileRegistry, tmp_path: Path, attack: Attack, status: int
) -> None:
    """T55: `models history` finds a changed name in an entry, a removed entry and a move made without the commands.

    Only copies are attacked, because restoring a running gateway's database would undo what it has written since.
    """
    for version in ("1.0", "1.1"):
        if registry.read(MODEL).aliases.get("production") != version:
            assert move(gateway, version).is_success
    copy, copied = copy_databases(gateway, registry, tmp_path)
    found, document = read_history(copy)
    assert (found, document["verified"], document["notes"]) == (0, True, [])
    attack(copy, copied)
    found, document = read_history(copy)
    assert (found, document["verified"]) == (status, status == 0)
    assert document["problems"] or document["notes"]


@pytest.mark.parametrize(
    ("version", "alias", "status"),
    [("1.2", "production", 409), ("../1.0", "production", 422), ("1.0", "..%2Fother", 404), ("1.0", ".lock", 422)],
)
def test_a_stolen_credential_cannot_promote_what_is_not_trusted(
    gateway: Gateway, registry: FileRegistry, version: str, alias: str, status: int
) -> None:
    """T56: a version signed with another key, and names that leave the registry, are rejected without naming a path."""
    before = registry.read(MODEL).aliases
    response = move(gateway, version, alias=alias)
    assert response.status_code == status
    assert str(registry.root) not in response.text
    assert registry.read(MODEL).aliases == before


def test_a_client_cannot_promote(gateway: Gateway, registry: FileRegistry) -> None:
    """T56: a client, who lacks the scope `models:write`, cannot move an alias."""
    before = registry.read(MODEL).aliases
    assert move(gateway, "1.0", user="ana").status_code == 403
    assert registry.read(MODEL).aliases == before
