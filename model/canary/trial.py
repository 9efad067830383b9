"""The trial of a candidate in one process: chooses the requests, and collects findings until they are written."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from enum import StrEnum
from typing import Protocol

from msgspec import Struct, field

from model.canary.comparison import Comparison
from model.canary.evidence import Evidence, Outcome, compare_on_different_images, compare_on_same_image
from model.canary.pairing import Arm, Pairing
from model.canary.spare_thread import SpareThread
from model.serving.shared_backend import SharedBackend

# Decides which model responds to a caller; None if the request is not part of the trial.
ChooseArm = Callable[[str], Arm | None]

_NO_COMPARISON: AbstractContextManager[None] = nullcontext()
# The maximum number of label pairs to keep while the database is unavailable. Counts are always kept.
_MAX_PAIRS = 10_000


class ShadowOutcome(StrEnum):
    """The result of running the other model on an image."""

    COMPARED = "compared"
    DROPPED = "dropped"
    FAILED = "failed"


class TrialObserver(Protocol):
    """Its methods are called from several threads."""

    def on_evidence(self, evidence: Evidence) -> None: ...

    def on_shadow(self, outcome: ShadowOutcome) -> None: ...

    def on_error(self, error: Exception) -> None:
        """The candidate failed for the first time in this process."""
        ...


class LabelPair(Struct, frozen=True):
    """The labels that both models gave to an image, kept until its true label is known."""

    prediction_id: str
    candidate: str
    production: str


class Findings(Struct, frozen=True):
    evidence: Evidence = field(default_factory=Evidence)
    pairs: tuple[LabelPair, ...] = ()

    def __add__(self, other: Findings) -> Findings:
        return Findings(self.evidence + other.evidence, (self.pairs + other.pairs)[:_MAX_PAIRS])

    def __bool__(self) -> bool:
        return bool(self.evidence.tallies)


class Trial:
    """Compares `candidate` with `production`. It is closed when either is replaced; later findings are ignored.

    With `pairs_in_time`, the outcome for an image that only one model has classified is paired with an outcome of the
    other model for another image.
    """

    def __init__(
        self,
        candidate: SharedBackend,
        production: SharedBackend,
        choose_arm: ChooseArm,
        spare: SpareThread,
        observer: TrialObserver,
        *,
        pairs_in_time: bool,
        stuck_s: float,
    ) -> None:
        self.candidate = candidate
        self._production = production
        self._choose_arm = choose_arm
        self._spare = spare
        self._observer = observer
        self._stuck_s = stuck_s
        self._pairing = Pairing[Outcome]() if pairs_in_time else None
        self._lock = threading.Lock()
        self._findings = Findings()
        self._has_failed = False
        self.is_open = True

    @property
    def is_candidate_stuck(self) -> bool:
        return self._pairing is None and self._spare.busy_s > self._stuck_s

    def compare(self, caller: str) -> AbstractContextManager[Comparison | None]:
        """Return the comparison for a request; its value is None if the request is not part of the trial."""
        arm = self._choose_arm(caller)
        if arm is None:
            return _NO_COMPARISON
        on_both = self._pairing is None or arm is Arm.CANDIDATE
        return Comparison(self, self.candidate, self._production, arm, on_both=on_both)

    def take_findings(self) -> Findings:
        """Return the findings since the last call."""
        with self._lock:
            findings, self._findings = self._findings, Findings()
        return findings

    def put_back(self, findings: Findings) -> None:
        """Put back findings that could not be written."""
        with self._lock:
            self._findings = findings + self._findings

    def close(self) -> None:
        self.is_open = False
        self._spare.close()

    def count_both(self, candidate: Outcome, production: Outcome, prediction_id: str | None) -> None:
        pairs: tuple[LabelPair, ...] = ()
        if prediction_id and candidate.class_index is not None and production.class_index is not None:
            classes = self._production.backend.info.classes
            labels = classes[candidate.class_index], classes[production.class_index]
            pairs = (LabelPair(prediction_id, *labels),)
        self._add(Findings(compare_on_same_image(candidate, production), pairs))

    def count_alone(self, arm: Arm, outcome: Outcome) -> None:
        if self._pairing is None:
            return
        with self._lock:
            pair = self._pairing.add(arm, outcome)
        if pair is not None:
            self._add(Findings(compare_on_different_images(pair.candidate, pair.production)))

    def report_error(self, error: Exception) -> None:
        with self._lock:
            is_first, self._has_failed = not self._has_failed, True
        if is_first:
            self._observer.on_error(error)

    def run_later(self, work: Callable[[], bool], drop: Callable[[], None]) -> None:
        def run() -> None:
            self._observer.on_shadow(ShadowOutcome.COMPARED if work() else ShadowOutcome.FAILED)

        def drop_and_count() -> None:
            drop()
            self._observer.on_shadow(ShadowOutcome.DROPPED)

        self._spare.offer(run, drop_and_count)

    def _add(self, findings: Findings) -> None:
        with self._lock:
            if not self.is_open:
                return
            self._findings += findings
        self._observer.on_evidence(findings.evidence)
