"""Alias moves of the mirror that the ledger could not record."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from api.services.mirror.opening import MoveRecorder
from api.settings import Settings
from auth.tokens.jws import generate_signing_key
from model.registry.files import FileRegistry
from monitoring.chains.signing import new_private_key
from tests.model.registry.versions import MODEL, write_version
from tests.monitoring.ledger.ledgers import execute
from tests.support.gateway import create_database


@pytest.fixture
def registry(tmp_path: Path) -> FileRegistry:
    registry = FileRegistry(tmp_path / "registry")
    registry.add(write_version(tmp_path, "1.0"))
    registry.move_aliases(MODEL, {"production": "1.0"}, who="mlflow", why="moved there")
    return registry


@pytest.fixture
def recorder(tmp_path: Path, registry: FileRegistry) -> MoveRecorder:
    settings = Settings(
        database_url=f"sqlite:///{tmp_path}/gateway.db",
        auth={"signing_key": generate_signing_key("ES256")},
        ledger={"signing_key": new_private_key()},
    )
    return MoveRecorder(settings, registry, MODEL)


def test_a_later_pull_records_what_an_earlier_one_could_not(
    tmp_path: Path, registry: FileRegistry, recorder: MoveRecorder
) -> None:
    """A move that could not be recorded is recorded once the ledger is available again; the outage is logged once."""
    url = f"sqlite:///{tmp_path}/gateway.db"
    create_database(url)
    execute(url, "ALTER TABLE ledger_payloads RENAME TO away")
    with capture_logs() as logs:
        recorder.record()
        recorder.record()
    assert [entry["code"] for entry in logs if entry["event"] == "alias_moves_unrecorded"] == ["ledger_unavailable"]
    assert len(registry.read(MODEL).unrecorded) == 1
    execute(url, "ALTER TABLE away RENAME TO ledger_payloads")
    recorder.record()
    assert registry.read(MODEL).unrecorded == ()


def test_a_missing_database_is_not_created(tmp_path: Path, registry: FileRegistry, recorder: MoveRecorder) -> None:
    """Before the first start of a gateway there is no ledger: the move stays unrecorded, and no file is created."""
    recorder.record()
    assert len(registry.read(MODEL).unrecorded) == 1
    assert not (tmp_path / "gateway.db").exists()
