"""A follower whose candidates, evidence and store the test controls."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from msgspec.structs import replace

from model.backends.base import Backend
from model.backends.stub import StubBackend
from model.canary.contest import Contest
from model.canary.follower import CandidateFollower
from model.canary.pairing import Arm
from model.canary.spare_thread import SpareThread
from model.canary.trial import Findings, Trial
from model.errors import MemoryFull
from model.registry.errors import RegistryUnavailable
from model.serving.service import PredictionService
from model.serving.shared_backend import SharedBackend
from tests.model.canary.trials import TrialReports
from tests.model.serving.gated import FakeClock, GatedBackend, MakeService, png
from tests.support.polling import wait_until_async


class StoreUnavailable(Exception):
    """The error of a store that the test makes unavailable."""


def make_contest(candidate: str, production: str = "1.0") -> Contest:
    return Contest("stub", candidate, f"digest of {candidate}", production, f"digest of {production}")


class ScriptedCandidates:
    """Candidates without files: the test chooses the contest, and can make loads fail."""

    def __init__(self) -> None:
        self.contest: Contest | None = None
        self.registry_fails = self.memory_is_full = False
        self.broken: Exception | None = None
        self.unexpected: Exception | None = None  # of the registry
        self.opened: list[str] = []
        self.released: list[Backend] = []
        self.reserved = 0
        self.classes: tuple[str, ...] | None = None

    def find(self) -> Contest | None:
        if self.registry_fails:
            raise RegistryUnavailable("gone")
        if self.unexpected is not None:
            raise self.unexpected
        return self.contest

    @asynccontextmanager
    async def reserve_memory(self, contest: Contest) -> AsyncIterator[None]:
        if self.memory_is_full:
            raise MemoryFull("full", retry_after_s=1)
        self.reserved += 1
        try:
            yield
        finally:
            self.reserved -= 1

    def open(self, contest: Contest) -> Backend:
        self.opened.append(contest.candidate)
        if self.broken is not None:
            raise self.broken
        backend = StubBackend()
        backend.info = replace(backend.info, version=contest.candidate, classes=self.classes or backend.info.classes)
        return backend

    def make_trial(self, contest: Contest, candidate: SharedBackend, production: SharedBackend) -> Trial:
        spare = SpareThread(lambda: True)
        return Trial(
            candidate, production, lambda _: Arm.CANDIDATE, spare, TrialReports(), pairs_in_time=True, stuck_s=60
        )

    def release(self, backend: Backend) -> None:
        self.released.append(backend)


class ScriptedEvidence:
    """Evidence in memory; the test decides contests, and can make the store unavailable."""

    def __init__(self) -> None:
        self.decided: set[str] = set()
        self.written = Findings()
        self.begun: list[str] = []
        self.is_unavailable = self.is_broken = False

    async def begin(self, contest: Contest) -> bool:
        if self.is_unavailable:
            raise StoreUnavailable
        self.begun.append(contest.candidate)
        return contest.candidate not in self.decided

    async def write(self, contest: Contest, findings: Findings) -> bool:
        if self.is_unavailable:
            raise StoreUnavailable
        if self.is_broken:
            raise LookupError("no such row")
        self.written += findings
        return contest.candidate not in self.decided


class FollowerReports:
    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []

    def on_start(self, contest: Contest) -> None:
        self.events.append(("start", contest.candidate))

    def on_end(self, contest: Contest) -> None:
        self.events.append(("end", contest.candidate))

    def on_failure(self, contest: Contest, error: Exception) -> None:
        self.events.append((getattr(error, "code", ""), contest.candidate))

    def on_check_failure(self, error: Exception) -> None:
        self.events.append((type(error).__name__, ""))


class Scene:
    """A prediction service with a follower whose dependencies the test controls."""

    def __init__(self, service: PredictionService, clock: FakeClock) -> None:
        self.service, self.clock = service, clock
        self.candidates, self.evidence, self.reports = ScriptedCandidates(), ScriptedEvidence(), FollowerReports()
        self.follower = CandidateFollower(
            service, self.candidates, self.evidence, self.reports, (StoreUnavailable,), clock
        )

    async def look(self, candidate: str | None, production: str = "1.0") -> None:
        """Have the follower check its candidate, and wait until no earlier candidate has memory reserved."""
        self.candidates.contest = None if candidate is None else make_contest(candidate, production)
        await self.follower.catch_up()
        # The follower itself waits for a limited time only.
        await wait_until_async(lambda: self.candidates.reserved == (self.service.trial is not None))

    async def serve(self) -> str:
        """Serve a request, wait for the findings of its comparison, and return the version that responded."""
        trial = self.service.trial
        prediction = await self.service.predict(png(1), caller="ana")
        if prediction.follow_up is not None and trial is not None:
            prediction.follow_up.complete_later("id")
            await wait_until_async(lambda: self._keep_findings(trial))
        return prediction.model.version

    def _keep_findings(self, trial: Trial) -> bool:
        findings = trial.take_findings()
        trial.put_back(findings)
        return bool(findings)


def make_scene(backend: GatedBackend, make_service: MakeService, clock: FakeClock) -> Scene:
    backend.gate.set()
    return Scene(make_service(), clock)
