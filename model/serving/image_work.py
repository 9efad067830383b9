"""The work on the image of a request, mostly in worker threads: read its header, and classify it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from msgspec.structs import replace

from model.backends.base import Backend
from model.backends.call import calling
from model.canary.comparison import Comparison
from model.errors import DeadlineExceeded
from model.explanation.explanation import ExplanationRequest
from model.imaging.decode import ImageNeeds, measure_image
from model.imaging.input_spec import InputSpec
from model.imaging.quick_headers import has_quick_header, measure_plain_jpeg
from model.serving.prediction import Prediction, describe_image, explain_outputs, interpret_outputs, run_model
from model.serving.queue import Job, OnStage
from model.serving.sources import ImageSource, PixelTensor, decode_source, measure_source, measure_tensor


class Inspection(NamedTuple):
    """The needs of an image according to its header, and the seconds spent queueing for and reading the header."""

    needs: ImageNeeds
    queued_s: float = 0.0
    read_s: float = 0.0


class ImageWork:
    """Reads the headers of images, and classifies the images.

    Calls `on_stage(stage, seconds)` when a stage ends, even with an error.
    Calls `on_done(seconds)` with the duration of each complete prediction. Deadlines are in seconds of `clock`.
    """

    def __init__(
        self,
        on_stage: OnStage,
        on_done: Callable[[float], None],
        clock: Callable[[], float],
    ) -> None:
        self._on_stage = on_stage
        self._on_done = on_done
        self._clock = clock

    def inspect_quickly(self, data: ImageSource, spec: InputSpec) -> Inspection | None:
        """Read the header on the event loop, or return None if a worker thread should read it."""
        started = time.perf_counter()
        try:
            needs = _measure_quickly(data, spec)
        except Exception:
            self._on_stage("decode", time.perf_counter() - started)
            raise
        return None if needs is None else Inspection(needs, read_s=time.perf_counter() - started)

    def inspect(self, spec: InputSpec, job: Job[Inspection]) -> Inspection:
        started = time.perf_counter()
        self._check_deadline(job)
        job.stage = "decode"
        try:
            needs = measure_source(job.data, spec)
        except BaseException:
            self._on_stage("decode", time.perf_counter() - started)
            raise
        return Inspection(needs, started - job.queued_at, time.perf_counter() - started)

    def predict(
        self,
        backend: Backend,
        explanation: ExplanationRequest | None,
        inspection: Inspection | None,
        comparison: Comparison | None,
        job: Job[Prediction],
    ) -> Prediction:
        """Classify the image with `backend`, or with the model that `comparison` chooses."""
        data, spec, started = job.data, backend.info.input_spec, time.perf_counter()
        queued_s, read_s = (inspection.queued_s, inspection.read_s) if inspection else (0.0, 0.0)
        timing: dict[str, float] = {}
        self._report("queue", job, started - job.queued_at + queued_s, timing)
        self._check_deadline(job)
        with self._time_stage("decode", job, timing, read_s):
            decoded = decode_source(data, spec, inspection.needs.reduced if inspection else None)
            facts = describe_image(data, decoded)
        remaining_s = job.deadline - self._clock()
        with self._time_stage("infer", job, timing), calling(time.monotonic() + remaining_s) as call:
            if comparison is None:
                outputs = run_model(backend, decoded.pixels, with_features=explanation is not None)
            else:
                backend, outputs = comparison.run(decoded.pixels, with_features=explanation is not None)
        prediction = interpret_outputs(outputs, call.model or backend.info, facts, timing, comparison)
        if call.engine is not None:
            prediction = replace(prediction, engine=call.engine)
        if explanation is not None:
            with self._time_stage("explain", job, timing):
                explained = explain_outputs(backend, outputs, decoded.pixels, explanation)
            prediction = replace(prediction, explanation=explained)
        # Only complete predictions are measured: a corrupt image ends early and would distort the estimate.
        self._on_done(time.perf_counter() - started)
        return prediction

    def _check_deadline(self, job: Job[Any]) -> None:
        if self._clock() > job.deadline:
            raise DeadlineExceeded

    @contextmanager
    def _time_stage(self, stage: str, job: Job[Any], timing: dict[str, float], spent_s: float = 0.0) -> Iterator[None]:
        """Report the duration of the block plus `spent_s`, the time already spent on this stage."""
        job.stage = stage
        started = time.perf_counter() - spent_s
        try:
            yield
        finally:
            self._report(stage, job, time.perf_counter() - started, timing)

    def _report(self, stage: str, job: Job[Any], seconds: float, timing: dict[str, float]) -> None:
        timing[stage] = seconds
        self._on_stage(stage, seconds)
        if job.on_stage is not None:
            job.on_stage(stage, seconds)


def _measure_quickly(data: ImageSource, spec: InputSpec) -> ImageNeeds | None:
    if isinstance(data, PixelTensor):
        return measure_tensor(data, spec)
    needs = measure_plain_jpeg(data, spec)
    return measure_image(data, spec) if needs is None and has_quick_header(data) else needs
