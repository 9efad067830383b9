"""Evidence from labels that arrive later, and the verdict that they can lead to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

import monitoring
from api.services.canary.evidence import SharedEvidence
from model.canary.contest import Contest
from model.canary.evidence import Evidence, Metric, Tally
from model.canary.judge import Judgement, JudgeRules
from model.canary.trial import Findings, LabelPair
from monitoring.canary.store import CLAIM_S, TrialNames, TrialRecord, TrialStore
from storage.engine import open_engine
from storage.migrations import migrate

CONTEST = Contest("tiny", "2.0", "digest of 2.0", "1.0", "digest of 1.0")
LABELS = 60


class Acts:
    """The trials whose verdict was acted on."""

    def __init__(self) -> None:
        self.records: list[TrialRecord] = []
        self.judgements: list[Judgement] = []

    async def act(self, record: TrialRecord) -> None:
        self.records.append(record)


@pytest.fixture
def acts() -> Acts:
    return Acts()


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    engine = open_engine(f"sqlite:///{tmp_path}/records.db")
    await migrate(engine, monitoring.MIGRATIONS)
    yield engine
    await engine.dispose()


@pytest.fixture
def evidence(engine: AsyncEngine, acts: Acts) -> SharedEvidence:
    return SharedEvidence(
        TrialStore(engine), JudgeRules(), lambda _, judgement: acts.judgements.append(judgement), acts.act
    )


async def test_a_label_counts_once_for_an_image_that_both_models_saw(evidence: SharedEvidence, acts: Acts) -> None:
    """Only the first label of an image that both models classified is compared with their predictions."""
    pair = LabelPair("id-1", candidate="river", production="forest")
    assert await evidence.begin(CONTEST)
    assert await evidence.write(CONTEST, Findings(Evidence({Metric.DISAGREEMENT: Tally(worse=1)}), (pair,)))
    assert await evidence.record_label("id-1", "forest") == Evidence({Metric.ACCURACY: Tally(worse=1)})
    assert await evidence.record_label("id-1", "river") == Evidence()
    assert await evidence.record_label("id-2", "forest") == Evidence()
    accuracy = {one.metric: one.tally for one in acts.judgements[-1].evidence}[Metric.ACCURACY]
    assert (accuracy, acts.records) == (Tally(worse=1), [])


async def test_labels_can_bring_a_verdict(evidence: SharedEvidence, acts: Acts) -> None:
    """A candidate that is wrong about labelled images, where production is right, is taken back once."""
    pairs = tuple(LabelPair(f"id-{number}", candidate="river", production="forest") for number in range(LABELS))
    await evidence.begin(CONTEST)
    await evidence.write(CONTEST, Findings(Evidence({Metric.ERROR_RATE: Tally(same=LABELS)}), pairs))
    for number in range(LABELS):
        await evidence.record_label(f"id-{number}", "forest")
    assert [record.verdict for record in acts.records] == ["take_back"]
    assert not await evidence.begin(CONTEST)


async def test_a_verdict_is_acted_on_after_the_trial(engine: AsyncEngine, evidence: SharedEvidence, acts: Acts) -> None:
    """A verdict that no process has finished acting on is acted on once, even if no alias names the candidate."""
    names = TrialNames(CONTEST.id, CONTEST.model, CONTEST.candidate, CONTEST.production)
    long_ago = TrialStore(engine, lambda: datetime.now(UTC) - timedelta(seconds=CLAIM_S + 1))
    await long_ago.begin(names)
    await long_ago.add(CONTEST.id, {}, [], lambda _: "promote")
    for _ in range(2):
        await evidence.finish_verdicts("tiny")
    assert [(record.names, record.verdict) for record in acts.records] == [(names, "promote")]
