"""Following the alias of candidates: which are loaded and tried, and when they are released."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from model.backends.base import Backend
from model.backends.stub import StubBackend
from model.canary.contest import Contest
from model.canary.follower import DECIDED_POLL_S, CandidateFollower
from model.canary.pairing import Arm
from model.canary.spare_thread import SpareThread
from model.canary.trial import Findings, Trial
from model.errors import ArtefactError, MemoryFull
from model.registry.errors import RegistryUnavailable
from model.serving.retries import FIRST_RETRY_S
from model.serving.service import PredictionService
from model.serving.shared_backend import SharedBackend
from tests.model.canary.trials import TrialReports
from tests.model.serving.gated import FakeClock, GatedBackend, MakeService, png
from tests.support.polling import wait_until_async


class StoreUnavailable(Exception):
    """The error of a store that a test takes away."""


def make_contest(candidate: str, production: str = "1.0") -> Contest:
    return Contest("stub", candidate, f"digest of {candidate}", production, f"digest of {production}")


class ScriptedCandidates:
    """Candidates without files: the test chooses the contest, and makes loads fail."""

    def __init__(self) -> None:
        self.contest: Contest | None = None
        self.registry_fails = self.memory_is_full = False
        self.broken: Exception | None = None
        self.opened: list[str] = []
        self.released: list[Backend] = []
        self.reserved = 0
        self.classes: tuple[str, ...] | None = None

    def find(self) -> Contest | None:
        if self.registry_fails:
            raise RegistryUnavailable("gone")
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
    """Evidence in memory; the test lets a verdict fall, and takes the store away."""

    def __init__(self) -> None:
        self.decided: set[str] = set()
        self.written = Findings()
        self.begun: list[str] = []
        self.is_unavailable = False

    async def begin(self, contest: Contest) -> bool:
        if self.is_unavailable:
            raise StoreUnavailable
        self.begun.append(contest.candidate)
        return contest.candidate not in self.decided

    async def write(self, contest: Contest, findings: Findings) -> bool:
        if self.is_unavailable:
            raise StoreUnavailable
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


class Scene:
    """A service in front of a follower whose surroundings the test controls."""

    def __init__(self, service: PredictionService, clock: FakeClock) -> None:
        self.service, self.clock = service, clock
        self.candidates, self.evidence, self.reports = ScriptedCandidates(), ScriptedEvidence(), FollowerReports()
        self.follower = CandidateFollower(
            service, self.candidates, self.evidence, self.reports, (StoreUnavailable,), clock
        )

    async def look(self, candidate: str | None, production: str = "1.0") -> None:
        self.candidates.contest = None if candidate is None else make_contest(candidate, production)
        await self.follower.catch_up()

    async def serve(self) -> str:
        """The version that responds to a request, whose comparison is then found."""
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


async def test_a_candidate_is_tried_while_the_alias_names_it(
    backend: GatedBackend, make_service: MakeService, clock: FakeClock
) -> None:
    """The candidate serves and holds memory from the look that sees the alias to the one that misses it."""
    scene = make_scene(backend, make_service, clock)
    await scene.look(None)
    assert await scene.serve() == "1.0"
    await scene.look("2.0")
    assert (await scene.serve(), scene.candidates.reserved) == ("2.0", 1)
    await scene.look(None)
    assert (await scene.serve(), scene.candidates.reserved) == ("1.0", 0)
    assert [each.info.version for each in scene.candidates.released] == ["2.0"]
    assert scene.reports.events == [("start", "2.0"), ("end", "2.0")]
    assert scene.evidence.written.evidence.tallies


async def test_another_candidate_replaces_the_first(
    backend: GatedBackend, make_service: MakeService, clock: FakeClock
) -> None:
    """When the alias moves, the first candidate is released before the next one is loaded."""
    scene = make_scene(backend, make_service, clock)
    await scene.look("2.0")
    await scene.look("2.1")
    assert (await scene.serve(), scene.candidates.reserved) == ("2.1", 1)
    assert scene.reports.events == [("start", "2.0"), ("end", "2.0"), ("start", "2.1")]


async def test_a_verdict_ends_the_trial(backend: GatedBackend, make_service: MakeService, clock: FakeClock) -> None:
    """Once a verdict has fallen, in whichever process, the candidate is released and not loaded again."""
    scene = make_scene(backend, make_service, clock)
    await scene.look("2.0")
    scene.evidence.decided.add("2.0")
    for _ in range(3):
        await scene.look("2.0")
    assert (await scene.serve(), scene.candidates.reserved) == ("1.0", 0)
    assert (scene.candidates.opened, scene.evidence.begun) == (["2.0"], ["2.0"])
    clock.now += DECIDED_POLL_S
    await scene.look("2.0")
    assert (scene.candidates.opened, scene.evidence.begun) == (["2.0"], ["2.0", "2.0"])


async def test_findings_wait_for_the_store(backend: GatedBackend, make_service: MakeService, clock: FakeClock) -> None:
    """While the store is unavailable the trial goes on, and what was found is written later."""
    scene = make_scene(backend, make_service, clock)
    await scene.look("2.0")
    scene.evidence.is_unavailable = True
    assert await scene.serve() == "2.0"
    await scene.look("2.0")
    assert not scene.evidence.written
    scene.evidence.is_unavailable = False
    await scene.look("2.0")
    assert scene.evidence.written


async def test_no_trial_begins_without_the_store(
    backend: GatedBackend, make_service: MakeService, clock: FakeClock
) -> None:
    """A candidate is not loaded while nothing could be recorded of it; the next look tries again."""
    scene = make_scene(backend, make_service, clock)
    scene.evidence.is_unavailable = True
    await scene.look("2.0")
    assert scene.candidates.opened == []
    scene.evidence.is_unavailable = False
    await scene.look("2.0")
    assert await scene.serve() == "2.0"


async def test_a_broken_candidate_is_tried_again_later(
    backend: GatedBackend, make_service: MakeService, clock: FakeClock
) -> None:
    """Production serves, the failure is reported once, and the next attempt comes after a delay."""
    scene = make_scene(backend, make_service, clock)
    scene.candidates.broken = ArtefactError("the graph is damaged")
    for _ in range(3):
        await scene.look("2.0")
    assert (await scene.serve(), scene.follower.problem) == ("1.0", "artefact_error")
    assert scene.reports.events == [("artefact_error", "2.0")]
    scene.candidates.broken = None
    clock.now += FIRST_RETRY_S
    await scene.look("2.0")
    assert (await scene.serve(), scene.follower.problem, scene.candidates.reserved) == ("2.0", None, 1)


async def test_a_candidate_with_other_classes_is_released(
    backend: GatedBackend, make_service: MakeService, clock: FakeClock
) -> None:
    """A candidate that cannot replace production for every caller serves none, and leaves no memory reserved."""
    scene = make_scene(backend, make_service, clock)
    scene.candidates.classes = backend.info.classes[::-1]
    await scene.look("2.0")
    assert (await scene.serve(), scene.candidates.reserved) == ("1.0", 0)
    assert [each.info.version for each in scene.candidates.released] == ["2.0"]
    assert scene.reports.events == [("candidate_not_comparable", "2.0")]


async def test_a_candidate_waits_for_memory(backend: GatedBackend, make_service: MakeService, clock: FakeClock) -> None:
    """While images have the memory nothing is loaded; the next look tries again, without a failure."""
    scene = make_scene(backend, make_service, clock)
    scene.candidates.memory_is_full = True
    await scene.look("2.0")
    assert (scene.candidates.opened, scene.reports.events) == ([], [])
    scene.candidates.memory_is_full = False
    await scene.look("2.0")
    assert await scene.serve() == "2.0"


async def test_a_trial_goes_on_while_the_registry_is_unreadable(
    backend: GatedBackend, make_service: MakeService, clock: FakeClock
) -> None:
    """Without the registry, what is in the trial stays in the trial."""
    scene = make_scene(backend, make_service, clock)
    await scene.look("2.0")
    scene.candidates.registry_fails = True
    await scene.look("2.0")
    assert await scene.serve() == "2.0"


async def test_a_replaced_production_ends_the_trial(
    backend: GatedBackend, make_service: MakeService, clock: FakeClock
) -> None:
    """A trial compares with one version in production; with another one, another trial begins once it serves."""
    scene = make_scene(backend, make_service, clock)
    await scene.look("2.0")
    await scene.look("2.0", production="1.1")
    assert (scene.service.trial, scene.candidates.reserved) == (None, 0)
    replacement = StubBackend()
    replacement.info = replace(replacement.info, version="1.1")
    scene.service.replace_backend(replacement)
    await scene.look("2.0", production="1.1")
    assert await scene.serve() == "2.0"
    assert scene.candidates.opened == ["2.0", "2.0"]


async def test_what_was_found_last_is_written_at_the_end(
    backend: GatedBackend, make_service: MakeService, clock: FakeClock
) -> None:
    """A process that shuts down writes what it has found since its last look."""
    scene = make_scene(backend, make_service, clock)
    await scene.look("2.0")
    await scene.serve()
    following = asyncio.create_task(scene.follower.follow())
    await asyncio.sleep(0)
    following.cancel()
    await asyncio.wait([following])
    assert scene.evidence.written
    assert scene.service.trial is None
