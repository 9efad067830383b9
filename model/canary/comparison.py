"""One request in a trial: one model classifies the image for the caller, and the outcomes are compared."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from model.backends.base import Backend
from model.backends.session_pool import using_one_core
from model.canary.evidence import Outcome
from model.canary.pairing import Arm
from model.errors import DeadlineExceeded
from model.serving.prediction import ModelOutputs, run_model
from model.serving.shared_backend import SharedBackend

_FAILED = Outcome(None, 0.0)


class Results(Protocol):
    """Receives the outcomes, and ignores them after it is closed."""

    @property
    def is_open(self) -> bool: ...

    @property
    def is_candidate_stuck(self) -> bool:
        """Whether the candidate hangs on an earlier image, so that it cannot run on another one."""
        ...

    def count_both(self, candidate: Outcome, production: Outcome, prediction_id: str | None) -> None:
        """Count the outcomes of both models for the same image."""
        ...

    def count_alone(self, arm: Arm, outcome: Outcome) -> None:
        """Count an outcome for an image that was classified only by the model that responded."""
        ...

    def report_error(self, error: Exception) -> None:
        """Report that the candidate failed on an image."""
        ...

    def run_later(self, work: Callable[[], bool], drop: Callable[[], None]) -> None:
        """Do the work when there is spare capacity, or call `drop`. `work` returns whether the model succeeded."""
        ...


class Comparison:
    """The model of `arm` responds. With `on_both`, the other model classifies the same image after the response.

    Use it in a `with` block around the request, which keeps the candidate in memory.
    """

    def __init__(
        self, results: Results, candidate: SharedBackend, production: SharedBackend, arm: Arm, *, on_both: bool
    ) -> None:
        self._results = results
        self._backends = {Arm.CANDIDATE: candidate, Arm.PRODUCTION: production}
        self._arm = arm
        self._on_both = on_both
        self._outcomes: dict[Arm, Outcome] = {}
        self._is_running = False
        self._pixels: NDArray[np.uint8] | None = None
        self._with_features = False

    def __enter__(self) -> Self:
        self._backends[Arm.CANDIDATE].__enter__()
        return self

    def __exit__(self, _: object, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._backends[Arm.CANDIDATE].__exit__()
        if self._is_running:  # there is no outcome yet; only a missed deadline counts, not a disconnected client
            if isinstance(error, DeadlineExceeded):
                self._results.count_alone(self._arm, _FAILED)
        elif error is not None and self._outcomes.get(Arm.PRODUCTION) is _FAILED:
            self._complete(None)

    def hold_until_done(self, work: Future[Any]) -> None:
        """Keep the candidate in memory until `work` has ended."""
        self._backends[Arm.CANDIDATE].hold_until_done(work)

    def run(self, pixels: NDArray[np.uint8], *, with_features: bool) -> tuple[Backend, ModelOutputs]:
        """Return the model that responds, and its outputs. If the candidate fails, production responds instead."""
        self._is_running, self._with_features = True, with_features
        try:
            if self._arm is Arm.CANDIDATE:
                outputs = self._try_candidate(pixels)
                if outputs is not None:
                    return self._backends[Arm.CANDIDATE].backend, outputs
            return self._backends[Arm.PRODUCTION].backend, self._run_production(pixels)
        finally:
            if self._on_both:
                self._pixels = pixels
            self._is_running = False  # last: after this, `__exit__` may complete the comparison

    def complete_later(self, prediction_id: str) -> None:
        """Complete the comparison once the event loop has written the response."""
        asyncio.get_running_loop().call_soon(self._complete, prediction_id)

    def _complete(self, prediction_id: str | None) -> None:
        if not self._results.is_open:
            return
        if self._arm is Arm.PRODUCTION and self._on_both and self._results.is_candidate_stuck:
            self._outcomes[Arm.CANDIDATE] = _FAILED
        if len(self._outcomes) == len(Arm):
            self._count_both(prediction_id)
        elif not self._on_both:
            self._results.count_alone(self._arm, self._outcomes[self._arm])
        else:
            other = self._backends[self._find_other()]
            other.__enter__()
            self._results.run_later(partial(self._run_other, other, prediction_id), partial(self._drop, other))

    def _run_other(self, other: SharedBackend, prediction_id: str | None) -> bool:
        pixels, self._pixels = self._pixels, None
        try:
            assert pixels is not None  # noqa: S101  (`run` has set them)
            if other is self._backends[Arm.CANDIDATE]:
                self._try_candidate(pixels)
            else:
                self._try_production(pixels)
        finally:
            other.__exit__()
        self._count_both(prediction_id)
        return self._outcomes[self._find_other()] is not _FAILED

    def _drop(self, other: SharedBackend) -> None:
        self._pixels = None
        other.__exit__()
        self._results.count_alone(self._arm, self._outcomes[self._arm])

    def _count_both(self, prediction_id: str | None) -> None:
        self._results.count_both(self._outcomes[Arm.CANDIDATE], self._outcomes[Arm.PRODUCTION], prediction_id)

    def _find_other(self) -> Arm:
        return Arm.PRODUCTION if self._arm is Arm.CANDIDATE else Arm.CANDIDATE

    def _try_candidate(self, pixels: NDArray[np.uint8]) -> ModelOutputs | None:
        try:
            backend = self._backends[Arm.CANDIDATE].backend
            outputs, outcome = _run_timed(backend, pixels, self._with_features)
            backend.info.confidence.check(outputs.probabilities, outputs.pooled)
        except Exception as error:  # whatever the candidate raises, the caller must get a response
            self._outcomes[Arm.CANDIDATE] = _FAILED
            self._results.report_error(error)
            return None
        self._outcomes[Arm.CANDIDATE] = outcome
        return outputs

    def _run_production(self, pixels: NDArray[np.uint8]) -> ModelOutputs:
        self._outcomes[Arm.PRODUCTION] = _FAILED
        outputs, self._outcomes[Arm.PRODUCTION] = _run_timed(
            self._backends[Arm.PRODUCTION].backend, pixels, self._with_features
        )
        return outputs

    def _try_production(self, pixels: NDArray[np.uint8]) -> None:
        with suppress(Exception):  # the outcome records the failure
            self._run_production(pixels)


def _run_timed(backend: Backend, pixels: NDArray[np.uint8], with_features: bool) -> tuple[ModelOutputs, Outcome]:
    """Run the model, and measure the processor time of this thread.

    The models of a comparison run at different priorities. Unlike wall-clock time, processor time does not depend on
    other load on the machine.
    """
    started = time.thread_time()
    with using_one_core():  # on two cores, the time of the runtime's own thread would be missing
        outputs = run_model(backend, pixels, with_features=with_features)
    return outputs, Outcome(int(outputs.probabilities.argmax()), time.thread_time() - started)
