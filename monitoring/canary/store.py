"""Stores trials. Every process adds its counts, and the process whose counts decide the trial acts on the verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta

from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from monitoring.canary.tables import canary_counts, canary_pairs, canary_trials
from monitoring.chains.timestamps import format_timestamp
from storage.engine import dialect_insert
from storage.transactions import reading, writing

# How often the candidate was worse, equal or better, by the name of the metric.
Counts = Mapping[str, tuple[int, int, int]]
# Returns the verdict on these counts, or None while there is none.
Judge = Callable[[Counts], str | None]

# If a process has not finished acting on a verdict after this time, it is assumed to be dead, and another takes over.
CLAIM_S = 60.0


class TrialNames(Struct, frozen=True):
    """`id` identifies the two artefacts that are compared; `candidate` and `production` are their versions."""

    id: str
    model: str
    candidate: str
    production: str


class TrialRecord(Struct, frozen=True):
    """Times are ISO 8601 in UTC. `verdict` and `judged_at` are None until the trial is decided."""

    names: TrialNames
    started_at: str
    counts: Counts
    verdict: str | None = None
    judged_at: str | None = None
    is_finished: bool = False


class PairedLabels(Struct, frozen=True):
    """The labels that both models gave to the image of a prediction."""

    prediction: str
    trial: str
    candidate: str
    production: str


class TrialStore:
    """Every method raises DatabaseUnavailable while the database is unavailable."""

    def __init__(self, engine: AsyncEngine, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._engine = engine
        self._clock = clock

    async def begin(self, names: TrialNames) -> TrialRecord:
        """Return the trial, and start it if it is new. Removes the labels of the model's earlier trials."""
        row = {"id": names.id, "model": names.model, "candidate": names.candidate, "production": names.production}
        async with writing(self._engine) as connection:
            statement = dialect_insert(canary_trials, connection.dialect).on_conflict_do_nothing()
            await connection.execute(statement.values(**row, started_at=self._now(), is_finished=False))
            earlier = select(canary_trials.c.id).where(
                canary_trials.c.model == names.model, canary_trials.c.id != names.id
            )
            await connection.execute(delete(canary_pairs).where(canary_pairs.c.trial.in_(earlier)))
            record = await _read(connection, names.id)
        assert record is not None  # noqa: S101  (it exists, or was inserted)
        return record

    async def find(self, trial: str) -> TrialRecord | None:
        """Return the trial, or None if it has not started."""
        async with reading(self._engine) as connection:
            return await _read(connection, trial)

    async def add(
        self, trial: str, counts: Counts, pairs: Iterable[PairedLabels], judge: Judge
    ) -> tuple[TrialRecord | None, bool]:
        """Add counts and pairs; return the updated trial, and whether these counts have decided it.

        Adds nothing to a trial that is already decided. Returns None and False if the database lacks the trial.
        """
        async with writing(self._engine) as connection:
            # The lock makes processes that add to the same trial wait for each other.
            locked = select(canary_trials.c.verdict).where(canary_trials.c.id == trial).with_for_update()
            row = (await connection.execute(locked)).one_or_none()
            if row is None:  # the database was restored from a backup
                return None, False
            is_undecided = row.verdict is None
            if is_undecided:
                await _add_counts(connection, trial, counts)
                await _insert_pairs(connection, pairs)
            record = await _read(connection, trial)
            assert record is not None  # noqa: S101  (its row is locked)
            verdict = judge(record.counts) if is_undecided else None
            if verdict is None:
                return record, False
            now = self._now()
            statement = update(canary_trials).where(canary_trials.c.id == trial)
            await connection.execute(statement.values(verdict=verdict, judged_at=now, claimed_at=now))
            await connection.execute(delete(canary_pairs).where(canary_pairs.c.trial == trial))
            return replace(record, verdict=verdict, judged_at=now), True

    async def take_over(self, model: str) -> list[TrialRecord]:
        """Claim the trials whose verdicts another process should have acted on, but has not within CLAIM_S."""
        now, columns = self._clock(), canary_trials.c
        long_ago, future = (format_timestamp(now + sign * timedelta(seconds=CLAIM_S)) for sign in (-1, 1))
        # A claim in the future is from before the clock was set back.
        is_claimed_now = (columns.claimed_at >= long_ago) & (columns.claimed_at <= future)
        is_overdue = columns.is_finished.is_(False) & ~is_claimed_now
        async with reading(self._engine) as connection:
            overdue = select(columns.id).where(columns.model == model, is_overdue)
            trials = (await connection.execute(overdue)).scalars().all()
        taken = []
        for trial in trials:
            async with writing(self._engine) as connection:
                claim = update(canary_trials).where(columns.id == trial, is_overdue).values(claimed_at=self._now())
                if (await connection.execute(claim)).rowcount == 1 and (record := await _read(connection, trial)):
                    taken.append(record)
        return taken

    async def finish(self, trial: str) -> None:
        """Record that the verdict was acted on."""
        async with writing(self._engine) as connection:
            await connection.execute(update(canary_trials).where(canary_trials.c.id == trial).values(is_finished=True))

    async def take_pair(self, prediction: str) -> PairedLabels | None:
        """Remove and return the labels of a prediction; None unless both models have classified its image."""
        statement = delete(canary_pairs).where(canary_pairs.c.prediction == prediction).returning(*canary_pairs.c)
        async with writing(self._engine) as connection:
            row = (await connection.execute(statement)).one_or_none()
        return None if row is None else PairedLabels(row.prediction, row.trial, row.candidate, row.production)

    def _now(self) -> str:
        return format_timestamp(self._clock())


async def _read(connection: AsyncConnection, trial: str) -> TrialRecord | None:
    row = (await connection.execute(select(canary_trials).where(canary_trials.c.id == trial))).one_or_none()
    if row is None:
        return None
    counted = await connection.execute(select(canary_counts).where(canary_counts.c.trial == trial))
    counts = {each.metric: (each.worse, each.same, each.better) for each in counted}
    names = TrialNames(row.id, row.model, row.candidate, row.production)
    return TrialRecord(names, row.started_at, counts, row.verdict, row.judged_at, row.is_finished)


async def _add_counts(connection: AsyncConnection, trial: str, counts: Counts) -> None:
    if not counts:
        return
    statement = dialect_insert(canary_counts, connection.dialect)
    names = ("worse", "same", "better")
    sums = {name: canary_counts.c[name] + statement.excluded[name] for name in names}
    statement = statement.on_conflict_do_update(index_elements=["trial", "metric"], set_=sums)
    rows = [
        {"trial": trial, "metric": metric, **dict(zip(names, each, strict=True))} for metric, each in counts.items()
    ]
    await connection.execute(statement, rows)


async def _insert_pairs(connection: AsyncConnection, pairs: Iterable[PairedLabels]) -> None:
    rows = [
        {
            "prediction": pair.prediction,
            "trial": pair.trial,
            "candidate": pair.candidate,
            "production": pair.production,
        }
        for pair in pairs
    ]
    if rows:
        await connection.execute(dialect_insert(canary_pairs, connection.dialect).on_conflict_do_nothing(), rows)
