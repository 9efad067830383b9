"""Candidates from the registry: loads them, reserves their memory, and chooses which requests they get."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from api.services.aliases.following import estimate_version_bytes
from api.services.capacity import MIN_BYTES, count_inference_threads
from api.services.opening import open_url, release
from api.services.registry import find_model_folder, open_registry
from api.services.serving import ServingServices
from api.settings import Settings
from model.backends.base import Backend
from model.backends.priority import WORKER_NICENESS
from model.canary.assignment import CallerAssignment, Mode, assign_callers, sample_requests
from model.canary.contest import Contest, find_contest
from model.canary.spare_thread import MAX_NICENESS, SpareThread
from model.canary.trial import ChooseArm, Trial, TrialObserver
from model.errors import ImageTooLargeHere, ModelTooLarge
from model.registry.reference import ModelReference
from model.registry.watch import StateWatch
from model.serving.shared_backend import SharedBackend

_CALLER = "candidate"  # in the memory budget; no principal has this name


class RegistryCandidates:
    """The versions that CANARY__ALIAS names, for the model that MODEL__URL names."""

    def __init__(
        self, settings: Settings, reference: ModelReference, serving: ServingServices, observer: TrialObserver
    ) -> None:
        self._settings = settings
        self._reference = reference
        self._serving = serving
        self._observer = observer
        self._watch = StateWatch(open_registry(settings), reference.model)

    def find(self) -> Contest | None:
        return find_contest(
            self._reference.model,
            self._watch.read(),
            production=self._reference.alias,
            candidate=self._settings.canary.alias,
        )

    @asynccontextmanager
    async def reserve_memory(self, contest: Contest) -> AsyncIterator[None]:
        """Reserve the memory of the candidate. Raises ModelTooLarge if too little would be left for images."""
        memory = self._serving.memory
        needed = await asyncio.to_thread(estimate_version_bytes, self._settings, contest.candidate, self._threads)
        async with memory.reserve(0, _CALLER) as reservation:
            try:
                if needed + MIN_BYTES > memory.total:
                    raise ImageTooLargeHere
                await reservation.resize(needed, while_waiting=0)
            except ImageTooLargeHere:
                raise ModelTooLarge(
                    f"Version {contest.candidate} takes about {needed >> 20} MB on top of the version in production, "
                    "which leaves too little for images. Give the gateway more memory or fewer MODEL__WORKERS."
                ) from None
            yield

    def open(self, contest: Contest) -> Backend:
        folder = find_model_folder(self._settings, contest.candidate)
        return open_url(self._settings, f"onnx://{folder}", self._threads)

    def make_trial(self, contest: Contest, candidate: SharedBackend, production: SharedBackend) -> Trial:
        canary, queue, memory = self._settings.canary, self._serving.predictions.queue, self._serving.memory
        serves_callers = canary.mode is Mode.CANARY
        if serves_callers:
            # The same key in all workers and replicas, so that a caller always gets the same model.
            key = hmac.digest(self._settings.ledger_key().encode(), b"canary", "sha256")
            choose_arm: ChooseArm = assign_callers(CallerAssignment(key, contest.candidate_digest), canary.share)
        else:
            choose_arm = sample_requests(canary.share)
        return Trial(
            candidate,
            production,
            choose_arm,
            # In a canary, the thread runs the production model on one of its sessions. A request may have to wait for
            # that session, so the thread gets the priority of the workers.
            SpareThread(
                lambda: not queue.busy and not memory.is_contended,
                niceness=WORKER_NICENESS if serves_callers else MAX_NICENESS,
            ),
            self._observer,
            pairs_in_time=serves_callers,
            stuck_s=self._settings.model.stuck_seconds,
        )

    def release(self, backend: Backend) -> None:
        release(backend)

    @property
    def _threads(self) -> int:
        """The number of threads that can use the candidate at once: in a canary all inference threads, else one."""
        return count_inference_threads(self._settings) if self._settings.canary.mode is Mode.CANARY else 1
