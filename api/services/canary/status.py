"""The trial of a model's candidate as operators see it: what is compared, the evidence so far, and what is missing."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from api.services.canary.evidence import read_counts
from api.settings import Settings
from model.canary.contest import Contest, find_contest
from model.canary.judge import judge
from model.canary.report import EvidenceRow, build_table, explain
from model.registry.reference import PRODUCTION
from model.registry.state import ModelState
from monitoring.canary.store import TrialRecord, TrialStore


class TrialStatus(Struct, frozen=True):
    """`verdict` follows from the evidence so far, and is final once `judged_at` is set. Times are ISO 8601 in UTC."""

    verdict: str
    rows: Sequence[EvidenceRow]
    reasons: Sequence[str]
    started_at: str | None
    judged_at: str | None


class ModelStatus(Struct, frozen=True):
    """`contest` and `trial` are None without a candidate."""

    model: str
    production: str
    contest: Contest | None
    trial: TrialStatus | None


async def read_status(settings: Settings, store: TrialStore, model: str, state: ModelState) -> ModelStatus:
    """Return the status of the model whose registry state is `state`. Raises UnknownAlias, DatabaseUnavailable."""
    reference = settings.model.reference
    alias = reference.alias if reference is not None and reference.model == model else PRODUCTION
    contest = find_contest(model, state, production=alias, candidate=settings.canary.alias)
    production = state.find_alias(alias)
    if contest is None:
        return ModelStatus(model, production, None, None)
    return ModelStatus(model, production, contest, _judge(settings, await store.find(contest.id)))


def _judge(settings: Settings, record: TrialRecord | None) -> TrialStatus:
    judgement = judge(read_counts(record.counts if record else {}), settings.canary.rules)
    return TrialStatus(
        verdict=(record and record.verdict) or judgement.verdict,
        rows=build_table(judgement),
        reasons=explain(judgement),
        started_at=record.started_at if record else None,
        judged_at=record.judged_at if record else None,
    )
