"""Stub candidates that differ, fail or block, trials of them, and a recorder of what a trial reports."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from model.backends.stub import StubBackend
from model.canary.evidence import Evidence
from model.canary.pairing import Arm
from model.canary.spare_thread import SpareThread
from model.canary.trial import ShadowOutcome, Trial
from model.serving.service import PredictionService
from model.serving.shared_backend import SharedBackend
from tests.support.polling import PATIENCE_S

Outputs = tuple[NDArray[np.float32], NDArray[np.float32]]


class Candidate(StubBackend):
    """A stub of version 2.0 that applies `change` to its outputs, and blocks while its gate is closed."""

    def __init__(self, change: Callable[[Outputs], Outputs] = lambda outputs: outputs) -> None:
        super().__init__()
        self.info = replace(self.info, version="2.0")
        self.change = change
        self.calls = 0
        self.gate = threading.Event()
        self.gate.set()

    def predict_pooled(self, pixels: NDArray[np.uint8]) -> Outputs:
        self.calls += 1
        assert self.gate.wait(PATIENCE_S)
        return self.change(super().predict_pooled(pixels))


def reverse_classes(outputs: Outputs) -> Outputs:
    """Reverse the order of the probabilities, so that another class is the most probable."""
    return outputs[0][:, ::-1], outputs[1]


def fail(_: Outputs) -> Outputs:
    raise RuntimeError("the runtime reports an error")


def return_nothing_finite(outputs: Outputs) -> Outputs:
    return np.full_like(outputs[0], np.nan), outputs[1]


def return_wrong_features(outputs: Outputs) -> Outputs:
    return outputs[0], outputs[1][:, 1:]


class TrialReports:
    """Records the calls to the observer of a trial."""

    def __init__(self) -> None:
        self.evidence = Evidence()
        self.shadows = Counter[ShadowOutcome]()
        self.errors: list[str] = []
        self._lock = threading.Lock()

    def on_evidence(self, evidence: Evidence) -> None:
        with self._lock:
            self.evidence += evidence

    def on_shadow(self, outcome: ShadowOutcome) -> None:
        with self._lock:
            self.shadows[outcome] += 1

    def on_error(self, error: Exception) -> None:
        self.errors.append(str(error))


def start_trial(
    service: PredictionService,
    candidate: StubBackend,
    *,
    arm: Arm = Arm.PRODUCTION,
    serves_callers: bool = False,
    is_spare: Callable[[], bool] = lambda: True,
    stuck_s: float = 60.0,
) -> tuple[Trial, TrialReports]:
    """Start a trial in which the model of `arm` responds to every caller except `eve`, who gets production."""
    reports, shared = TrialReports(), SharedBackend(candidate)

    def make(production: SharedBackend) -> Trial:
        return Trial(
            shared,
            production,
            lambda caller: Arm.PRODUCTION if caller == "eve" else arm,
            SpareThread(is_spare, backlog=2, patience_s=0.1),
            reports,
            pairs_in_time=serves_callers,
            stuck_s=stuck_s,
        )

    return service.start_trial(make), reports
