"""Acting on a verdict once, even if a process ends in between or someone else moves the aliases first."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

import pytest
from msgspec.structs import replace
from prometheus_client import CollectorRegistry

import monitoring
from api.services.canary.verdicts import VerdictActions
from api.settings import Settings
from api.settings.quality.canary import CanarySettings
from model.registry.files import FileRegistry
from model.registry.promotion import AliasMover
from model.registry.reference import ModelReference
from monitoring.canary.store import TrialNames, TrialRecord, TrialStore
from monitoring.chains.timestamps import format_timestamp
from monitoring.metrics import Metrics
from storage.engine import open_engine
from storage.errors import DatabaseUnavailable
from storage.migrations import migrate
from tests.model.registry.versions import MODEL, write_version

NAMES, COUNTS = TrialNames("a" * 64, MODEL, "1.1", "1.0"), {"error_rate": (0, 60, 0)}


def refuse(folder: Path) -> NoReturn:
    """Fail like locking a folder of another user, which root, who may run the tests, could lock."""
    raise PermissionError(errno.EACCES, "Permission denied", str(folder))


class Surroundings:
    """A registry in which 1.1 is the candidate, and the entries that are recorded."""

    def __init__(self, folder: Path, store: TrialStore) -> None:
        self.registry = FileRegistry(folder / "registry")
        for version in ("1.0", "1.1"):
            self.registry.add(write_version(folder, version))
        self.move(production="1.0", candidate="1.1")
        self.verdict = TrialRecord(NAMES, "", COUNTS, "promote", format_timestamp(datetime.now(UTC)))
        self.entries: list[dict[str, Any]] = []
        settings = Settings(canary=CanarySettings(verdict="act"))
        self.failures: list[Exception] = []
        self.mover = AliasMover(self.registry, lambda *_: None)
        reference, metrics = ModelReference(MODEL, "production"), Metrics(CollectorRegistry())
        self.actions = VerdictActions(settings, reference, self.mover, store, self.record, metrics)

    def move(self, **targets: str | None) -> None:
        self.registry.move_aliases(MODEL, targets, who="cli:olga", why="a test")

    async def record(self, entry: dict[str, Any]) -> None:
        if self.failures:
            raise self.failures.pop()
        self.entries.append(entry["canary_verdict"])

    @property
    def aliases(self) -> dict[str, str]:
        return dict(self.registry.read(MODEL).aliases)


@pytest.fixture
async def surroundings(tmp_path: Path) -> AsyncIterator[Surroundings]:
    engine = open_engine(f"sqlite:///{tmp_path}/records.db")
    await migrate(engine, monitoring.MIGRATIONS)
    yield Surroundings(tmp_path, TrialStore(engine))
    await engine.dispose()


async def test_acting_again_changes_nothing(surroundings: Surroundings) -> None:
    """A process that takes over after the aliases were moved leaves them, and records that they have moved."""
    await surroundings.actions.act(surroundings.verdict)
    promoted = {"production": "1.1", "previous": "1.0"}
    assert surroundings.aliases == promoted
    await surroundings.actions.act(surroundings.verdict)
    assert surroundings.aliases == promoted
    assert [entry["moved"] for entry in surroundings.entries] == [True, True]


async def test_a_later_decision_is_kept(surroundings: Surroundings) -> None:
    """If someone has moved an alias since the verdict, the gateway moves none."""
    surroundings.move(candidate=None)
    await surroundings.actions.act(surroundings.verdict)
    assert surroundings.aliases == {"production": "1.0"}
    assert [entry["moved"] for entry in surroundings.entries] == [False]


async def test_a_roll_back_stands_when_another_process_takes_over(surroundings: Surroundings) -> None:
    """An unfinished promotion that an operator has rolled back is not repeated."""
    surroundings.failures.append(DatabaseUnavailable("The database is down."))
    await surroundings.actions.act(surroundings.verdict)
    assert surroundings.aliases == {"production": "1.1", "previous": "1.0"}
    assert surroundings.entries == []
    surroundings.mover.roll_back(MODEL, who="cli:olga", why="a test")
    await surroundings.actions.act(surroundings.verdict)
    assert surroundings.aliases == {"production": "1.0", "previous": "1.1"}
    assert [entry["moved"] for entry in surroundings.entries] == [False]


@pytest.mark.parametrize("hours", [-1, 0, 1])
async def test_a_verdict_promotes_no_candidate_that_was_named_again(surroundings: Surroundings, hours: int) -> None:
    """Naming a candidate again after a roll-back does not repeat its promotion, whatever the time of the verdict."""
    judged_at = format_timestamp(datetime.now(UTC) + timedelta(hours=hours))
    surroundings.verdict = replace(surroundings.verdict, judged_at=judged_at)
    surroundings.failures.append(DatabaseUnavailable("The database is down."))
    await surroundings.actions.act(surroundings.verdict)
    surroundings.mover.roll_back(MODEL, who="cli:olga", why="a test")
    surroundings.move(candidate="1.1")
    await surroundings.actions.act(surroundings.verdict)
    assert surroundings.aliases == {"production": "1.0", "previous": "1.1", "candidate": "1.1"}
    assert [entry["moved"] for entry in surroundings.entries] == [False]


async def test_a_verdict_of_a_restored_database_promotes_again(surroundings: Surroundings) -> None:
    """If a trial is judged again, because its database was restored, the new verdict moves the aliases."""
    await surroundings.actions.act(surroundings.verdict)
    surroundings.move(production="1.0", candidate="1.1")
    judged_at = format_timestamp(datetime.now(UTC) + timedelta(seconds=1))
    await surroundings.actions.act(replace(surroundings.verdict, judged_at=judged_at))
    assert surroundings.aliases == {"production": "1.1", "previous": "1.0"}
    assert [entry["moved"] for entry in surroundings.entries] == [True, True]


async def test_a_verdict_on_a_removed_candidate_is_recorded_without_the_right_to_write(
    surroundings: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the registry is read-only a verdict waits; once the candidate is removed, it is recorded without a move."""
    with monkeypatch.context() as patch:
        patch.setattr("model.registry.files.lock_folder", refuse)
        await surroundings.actions.act(surroundings.verdict)
    assert surroundings.entries == []
    surroundings.move(candidate=None)
    monkeypatch.setattr("model.registry.files.lock_folder", refuse)
    await surroundings.actions.act(surroundings.verdict)
    assert [entry["moved"] for entry in surroundings.entries] == [False]


async def test_a_record_that_cannot_be_read_is_left(surroundings: Surroundings) -> None:
    """A verdict with counts of an unknown metric moves no alias, records nothing and raises no error."""
    await surroundings.actions.act(replace(surroundings.verdict, counts={"beauty": (0, 60, 0)}))
    assert surroundings.aliases == {"production": "1.0", "candidate": "1.1"}
    assert surroundings.entries == []
