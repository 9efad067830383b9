"""Canary trials in the database."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from monitoring.canary.store import CLAIM_S, Counts, PairedLabels, TrialNames, TrialStore

TRIAL = TrialNames("a" * 64, "tiny", "2.0", "1.0")
LATER = TrialNames("b" * 64, "tiny", "2.1", "1.0")
pytestmark = pytest.mark.usefixtures("patient_sqlite")
PAIR = PairedLabels("prediction-1", TRIAL.id, "forest", "river")


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 11, 26, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(engine: AsyncEngine, clock: Clock) -> TrialStore:
    return TrialStore(engine, clock)


def hold(_: Counts) -> None:
    return None


def take_back_at_ten(counts: Counts) -> str | None:
    return "take_back" if sum(counts["error_rate"]) >= 10 else None


async def test_counts_of_several_processes_add_up(store: TrialStore) -> None:
    """Concurrent additions are all counted, separately for each metric."""
    await store.begin(TRIAL)
    await asyncio.gather(
        *(store.add(TRIAL.id, {"error_rate": (1, 2, 0), "latency": (0, 1, 0)}, [], hold) for _ in range(8))
    )
    record, has_fallen = await store.add(TRIAL.id, {"error_rate": (0, 0, 3)}, [], hold)
    assert record is not None
    assert (record.counts, has_fallen) == ({"error_rate": (8, 16, 3), "latency": (0, 8, 0)}, False)


async def test_a_trial_survives_a_restart(store: TrialStore, engine: AsyncEngine) -> None:
    """A process that begins the same trial again finds its counts and its start time."""
    first = await store.begin(TRIAL)
    await store.add(TRIAL.id, {"error_rate": (1, 0, 0)}, [], hold)
    again = await TrialStore(engine).begin(TRIAL)
    assert (again.started_at, again.counts) == (first.started_at, {"error_rate": (1, 0, 0)})
    assert await store.find(LATER.id) is None


async def test_a_verdict_falls_once(store: TrialStore) -> None:
    """Of several concurrent additions, one returns the verdict to act on; later additions change nothing."""
    await store.begin(TRIAL)
    added = await asyncio.gather(
        *(store.add(TRIAL.id, {"error_rate": (1, 0, 0)}, [], take_back_at_ten) for _ in range(15))
    )
    assert sum(has_fallen for _, has_fallen in added) == 1
    record = await store.find(TRIAL.id)
    assert record is not None
    assert (record.verdict, record.counts, record.is_finished) == ("take_back", {"error_rate": (10, 0, 0)}, False)


async def test_an_unfinished_verdict_is_taken_over_by_one_process(store: TrialStore, clock: Clock) -> None:
    """If the process that must act on a verdict does not finish in time, exactly one other takes over."""
    await store.begin(TRIAL)
    await store.add(TRIAL.id, {"error_rate": (10, 0, 0)}, [], take_back_at_ten)
    assert await store.take_over(TRIAL.model) == []
    clock.now += timedelta(seconds=CLAIM_S + 1)
    taken = await asyncio.gather(*(store.take_over(TRIAL.model) for _ in range(4)))
    assert [record.names for records in taken for record in records] == [TRIAL]
    await store.finish(TRIAL.id)
    clock.now += timedelta(seconds=CLAIM_S + 1)
    assert await store.take_over(TRIAL.model) == []


async def test_a_verdict_is_taken_over_although_the_clock_was_set_back(store: TrialStore, clock: Clock) -> None:
    """A verdict that was claimed in what is now the future is taken over."""
    await store.begin(TRIAL)
    await store.add(TRIAL.id, {"error_rate": (10, 0, 0)}, [], take_back_at_ten)
    clock.now -= timedelta(seconds=CLAIM_S + 1)
    assert [record.names for record in await store.take_over(TRIAL.model)] == [TRIAL]


async def test_nothing_is_added_to_a_trial_that_the_database_lacks(store: TrialStore) -> None:
    """Additions to a trial that is missing from the database, as after a restore, are dropped."""
    assert await store.add(TRIAL.id, {"error_rate": (1, 0, 0)}, [PAIR], hold) == (None, False)
    assert await store.take_pair(PAIR.prediction) is None


async def test_labels_of_a_prediction_are_taken_once(store: TrialStore) -> None:
    """Only the first true label of a prediction counts, so the labels of both models are returned only once."""
    await store.begin(TRIAL)
    for _ in range(2):  # a batch whose acknowledgement was lost is written again
        await store.add(TRIAL.id, {}, [PAIR], hold)
    assert await store.take_pair("prediction-1") == PAIR
    assert await store.take_pair("prediction-1") is None


async def test_labels_of_an_earlier_trial_are_forgotten(store: TrialStore) -> None:
    """The stored labels of a trial are removed when the model's next trial begins, or when it gets a verdict."""
    await store.begin(TRIAL)
    await store.add(TRIAL.id, {}, [PAIR], hold)
    await store.begin(LATER)
    assert await store.take_pair("prediction-1") is None
    await store.add(LATER.id, {}, [PairedLabels("prediction-2", LATER.id, "forest", "river")], hold)
    await store.add(LATER.id, {"error_rate": (10, 0, 0)}, [], take_back_at_ten)
    assert await store.take_pair("prediction-2") is None
