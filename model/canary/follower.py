"""Try the version that the candidate alias points to: load it, compare it, write the evidence, release it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, Protocol, TypeVar

from model.backends.base import Backend
from model.canary.comparable import check_comparable
from model.canary.contest import Contest
from model.canary.trial import Findings, Trial
from model.errors import MemoryFull, ModelError
from model.serving.retries import Retries
from model.serving.service import PredictionService
from model.serving.shared_backend import SharedBackend
from model.serving.workers import LoadingThread, wait_for_result

T = TypeVar("T")

POLL_S = 0.5
# A decided contest is checked again after this time, because the database may have been restored.
DECIDED_POLL_S = 60.0
# The longest wait for a candidate to be released. A candidate that hangs is never released.
RELEASE_LIMIT_S = 10.0


class Candidates(Protocol):
    """The candidates for one model. `find`, `open` and `release` block."""

    def find(self) -> Contest | None:
        """Return the versions to compare; None if there is no candidate. Raises RegistryError."""
        ...

    def reserve_memory(self, contest: Contest) -> AbstractAsyncContextManager[None]:
        """Reserve memory for the candidate. Raises MemoryFull, ModelTooLarge."""
        ...

    def open(self, contest: Contest) -> Backend:
        """Return a back end that has made its first predictions. Raises ArtefactError, RegistryError."""
        ...

    def make_trial(self, contest: Contest, candidate: SharedBackend, production: SharedBackend) -> Trial: ...

    def release(self, backend: Backend) -> None:
        """Close a back end that is no longer used, and return its memory to the system."""
        ...


class EvidenceStore(Protocol):
    """The evidence that all processes have collected about a contest."""

    async def begin(self, contest: Contest) -> bool:
        """Return whether the contest is undecided. Raises StorageError."""
        ...

    def write(self, contest: Contest, findings: Findings) -> Coroutine[Any, Any, bool]:
        """Add the findings of this process, and return whether the contest is still undecided. Raises StorageError."""
        ...


class CandidateObserver(Protocol):
    def on_start(self, contest: Contest) -> None: ...

    def on_end(self, contest: Contest) -> None: ...

    def on_failure(self, contest: Contest, error: Exception) -> None:
        """The candidate could not be loaded or compared."""
        ...

    def on_check_failure(self, error: Exception) -> None:
        """The alias could not be read because of an unexpected error. Called once until a check succeeds."""
        ...


class CandidateFollower:
    """Keeps the candidate that the alias points to in a trial until there is a verdict. Use it on one event loop only.

    Writes the evidence of the trial at each check. `clock` is in seconds.
    """

    def __init__(
        self,
        predictions: PredictionService,
        candidates: Candidates,
        evidence: EvidenceStore,
        observer: CandidateObserver,
        storage_errors: tuple[type[Exception], ...] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._predictions = predictions
        self._candidates = candidates
        self._evidence = evidence
        self._observer = observer
        self._storage_errors = storage_errors
        self._temporary_errors: tuple[type[Exception], ...] = (MemoryFull, *storage_errors)
        self._retries = Retries(clock)
        self._thread = LoadingThread("candidate")
        self._contest: Contest | None = None  # of the trial
        self._trial: Trial | None = None
        self._resources = AsyncExitStack()
        self._releasing: set[asyncio.Task[None]] = set()
        self._decided: Contest | None = None
        self._clock = clock
        self._check_again_at = 0.0
        self._check_failed = False

    @property
    def problem(self) -> str | None:
        """The error code that explains why the candidate is not in a trial, or None."""
        return self._retries.code

    async def follow(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Check the alias twice a second until cancelled, then write the remaining findings."""
        try:
            while True:
                await sleep(POLL_S)
                try:
                    await self.catch_up()
                    self._check_failed = False
                except Exception as error:  # whatever the error is, the next check can start another trial
                    await self._give_up(error)
        finally:
            await self.close()

    async def catch_up(self) -> None:
        """Start or end a trial according to the alias, and write the findings since the last check."""
        try:
            contest = await self._thread.run(self._candidates.find)
        except ModelError:  # the follower of the production alias reports it
            contest = self._contest
        if self._trial is not None:
            await self._write()
        if self._trial is not None and (contest != self._contest or not self._trial.is_open):
            await self._end()
        if contest is not None and self._trial is None and self._is_due(contest):
            await self._try_start(contest)

    async def close(self) -> None:
        """End the trial, and write the remaining findings."""
        self._predictions.end_trial()
        try:
            await self._write()
        finally:
            for release in list(self._releasing):
                release.cancel()
            self._thread.close()

    def _is_due(self, contest: Contest) -> bool:
        if self._predictions.model.version != contest.production:
            return False  # the service has not followed its alias yet
        is_decided = contest == self._decided and self._clock() < self._check_again_at
        return not is_decided and self._retries.is_due(contest.id)

    async def _try_start(self, contest: Contest) -> None:
        try:
            async with AsyncExitStack() as stack:
                if not await self._evidence.begin(contest):
                    self._note_verdict(contest)
                    return
                await stack.enter_async_context(self._candidates.reserve_memory(contest))
                if not await self._start(contest, stack):
                    return
                self._resources = stack.pop_all()
        except self._temporary_errors:
            return  # the next check tries again
        except Exception as error:  # whatever is wrong with a candidate, production continues
            self._retries.record(contest.id, error)
            self._observer.on_failure(contest, error)
            return
        self._retries.clear()
        self._observer.on_start(contest)

    async def _start(self, contest: Contest, stack: AsyncExitStack) -> bool:
        """Start the trial unless another version has gone into production. Returns whether it has started."""
        backend = await self._thread.run(lambda: self._candidates.open(contest))
        stack.push_async_callback(self._release, shared := SharedBackend(backend))
        if self._predictions.model.version != contest.production:
            return False
        check_comparable(backend, self._predictions.backend)
        self._trial = self._predictions.start_trial(
            lambda production: self._candidates.make_trial(contest, shared, production)
        )
        self._contest = contest
        return True

    async def _release(self, shared: SharedBackend) -> None:
        backend = await wait_for_result(shared.retire())
        await self._thread.run(lambda: self._candidates.release(backend))

    async def _write(self) -> None:
        """Write the findings, or keep them while the database is unavailable. End the trial if there is a verdict."""
        if self._trial is None or self._contest is None:
            return
        findings = self._trial.take_findings()
        try:
            is_undecided = await _finish(self._evidence.write(self._contest, findings))
        except self._storage_errors:
            self._trial.put_back(findings)
            return
        if not is_undecided:
            self._note_verdict(self._contest)
            await self._end()

    async def _give_up(self, error: Exception) -> None:
        """End the trial, if there is one, after an unexpected error."""
        if self._contest is None:
            if not self._check_failed:
                self._observer.on_check_failure(error)
            self._check_failed = True
            return
        self._retries.record(self._contest.id, error)
        self._observer.on_failure(self._contest, error)
        await self._end()

    def _note_verdict(self, contest: Contest) -> None:
        self._decided, self._check_again_at = contest, self._clock() + DECIDED_POLL_S

    async def _end(self) -> None:
        contest, self._contest, self._trial = self._contest, None, None
        assert contest is not None  # noqa: S101  (each trial has one)
        self._predictions.end_trial()
        self._observer.on_end(contest)
        resources, self._resources = self._resources, AsyncExitStack()
        release = asyncio.create_task(resources.aclose())
        self._releasing.add(release)
        release.add_done_callback(self._releasing.discard)
        await asyncio.wait([release], timeout=RELEASE_LIMIT_S)


async def _finish(work: Coroutine[Any, Any, T]) -> T:
    """Finish the work even if this task is cancelled, so that findings are not written twice."""
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
