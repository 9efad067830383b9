"""Runs the trial of a candidate in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncEngine

from api.services.background import run_in_background
from api.services.background.activity import Activity
from api.services.canary.candidates import RegistryCandidates
from api.services.canary.evidence import SharedEvidence
from api.services.canary.reports import CanaryReports
from api.services.canary.verdicts import RecordEntry, VerdictActions
from api.services.serving import ServingServices
from api.settings import Settings
from model.canary.assignment import Mode
from model.canary.follower import CandidateFollower
from model.registry.promotion import AliasMover
from monitoring.canary.store import CLAIM_S, TrialStore
from monitoring.metrics import Metrics
from storage.errors import StorageError

log = structlog.get_logger("atalaya.canary")


class CanaryServices(Struct, frozen=True):
    """Only `store` is set if no candidate can be tried."""

    store: TrialStore
    follower: CandidateFollower | None = None
    evidence: SharedEvidence | None = None
    reports: CanaryReports | None = None

    async def record_label(self, prediction_id: str, label: str) -> None:
        """Count the true label of a prediction for or against the candidate, if both models have classified its image.

        Raises DatabaseUnavailable.
        """
        if self.evidence is not None and self.reports is not None:
            self.reports.on_evidence(await self.evidence.record_label(prediction_id, label))


@asynccontextmanager
async def try_candidates(
    settings: Settings,
    serving: ServingServices,
    mover: AliasMover | None,
    engine: AsyncEngine,
    record_entry: RecordEntry,
    metrics: Metrics,
    activity: Activity,
) -> AsyncIterator[CanaryServices]:
    """Try the version that CANARY__ALIAS names; do nothing if trials are off or MODEL__URL names no registry model."""
    reference, store = settings.model.reference, TrialStore(engine)
    if reference is None or mover is None or settings.canary.mode is Mode.OFF:
        yield CanaryServices(store)
        return
    reports = CanaryReports(metrics)
    actions = VerdictActions(settings, reference, mover, store, record_entry, metrics)
    evidence = SharedEvidence(store, settings.canary.rules, reports.on_judgement, actions.act)
    candidates = await asyncio.to_thread(RegistryCandidates, settings, reference, serving, reports)
    follower = CandidateFollower(serving.predictions, candidates, evidence, reports, (StorageError,))
    finishing = _finish_verdicts(evidence, reference.model, activity)
    async with run_in_background(follower.follow(activity.sleep)), run_in_background(finishing):
        yield CanaryServices(store, follower, evidence, reports)


async def _finish_verdicts(evidence: SharedEvidence, model: str, activity: Activity) -> None:
    """Act once a minute on verdicts that another process has left unfinished."""
    while True:
        try:
            await evidence.finish_verdicts(model)
        except StorageError:
            pass  # tried again in a minute
        except Exception as error:  # such as a record from a later release
            log.error("canary_verdicts_not_finished", policy="the gateway tries again later", exc_info=error)
        await activity.sleep(CLAIM_S)
