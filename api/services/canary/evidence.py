"""Combines the evidence of all processes. The process that reaches a verdict acts on it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

from model.canary.contest import Contest
from model.canary.evidence import Evidence, compare_with_label
from model.canary.judge import Judgement, JudgeRules, Verdict, judge
from model.canary.trial import Findings
from monitoring.canary.store import Counts, PairedLabels, TrialNames, TrialRecord, TrialStore

# How often a process without new evidence checks for a verdict.
_POLL_S = 2.0


class SharedEvidence:
    """Adds the findings of this process to the counts of all processes, and judges the sum.

    `act` is called in the process that reaches a verdict, and by `finish_verdicts` if that process does not finish.
    """

    def __init__(
        self,
        store: TrialStore,
        rules: JudgeRules,
        on_judgement: Callable[[str, Judgement], None],
        act: Callable[[TrialRecord], Awaitable[None]],
    ) -> None:
        self._store = store
        self._rules = rules
        self._on_judgement = on_judgement
        self._act = act
        self._polled_at = 0.0

    async def begin(self, contest: Contest) -> bool:
        names = TrialNames(contest.id, contest.model, contest.candidate, contest.production)
        return (await self._store.begin(names)).verdict is None

    async def finish_verdicts(self, model: str) -> None:
        """Act on verdicts for the model that another process reached but has not finished acting on in time.

        By now the aliases may name other versions. Raises DatabaseUnavailable.
        """
        for record in await self._store.take_over(model):
            await self._act(record)

    async def write(self, contest: Contest, findings: Findings) -> bool:
        now = time.monotonic()
        if not findings and now - self._polled_at < _POLL_S:
            return True
        self._polled_at = now
        pairs = [
            PairedLabels(each.prediction_id, contest.id, each.candidate, each.production) for each in findings.pairs
        ]
        return await self._add(contest.id, findings.evidence, pairs)

    async def record_label(self, prediction_id: str, label: str) -> Evidence:
        """Compare the true label of a prediction with the labels from both models, if both have classified its image.

        Only the first label of a prediction counts. Raises DatabaseUnavailable.
        """
        pair = await self._store.take_pair(prediction_id)
        if pair is None:
            return Evidence()
        evidence = compare_with_label(
            candidate_correct=pair.candidate == label, production_correct=pair.production == label
        )
        await self._add(pair.trial, evidence, [])
        return evidence

    async def _add(self, trial: str, evidence: Evidence, pairs: list[PairedLabels]) -> bool:
        """Return whether the trial is still undecided."""
        record, is_new_verdict = await self._store.add(trial, count(evidence), pairs, self._judge)
        if record is None:
            return False
        self._on_judgement(trial, judge(read_counts(record.counts), self._rules))
        if is_new_verdict:
            await self._act(record)
        return record.verdict is None

    def _judge(self, counts: Counts) -> str | None:
        verdict = judge(read_counts(counts), self._rules).verdict
        return None if verdict is Verdict.HOLD else verdict.value


def count(evidence: Evidence) -> Counts:
    return {metric.value: (tally.worse, tally.same, tally.better) for metric, tally in evidence.tallies.items()}


def read_counts(counts: Counts) -> Evidence:
    document: dict[str, Any] = {name: list(each) for name, each in counts.items()}
    return Evidence.from_document(document)
