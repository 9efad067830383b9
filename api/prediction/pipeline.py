"""Predictions from request to ledger, in this order: principal, admission, decode, infer, ledger.

Transports authenticate the principal and format the response; everything in between happens here. The pipeline records
every rejected request in the ledger.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from functools import cache, partial
from typing import Any, NamedTuple, TypeVar

from msgspec.structs import replace

from api.prediction.admission import (
    compute_deadline,
    estimate_body_bytes,
    finish_while_connected,
    read_batch,
)
from api.prediction.errors import ClientDisconnected
from api.prediction.quotas import CostEstimate, encode_charge, estimate_cost
from api.prediction.recording import describe_prediction, describe_refusal
from api.prediction.request import BatchBody, PredictionRequest, RecordedPrediction, RequestOrigin
from api.services.recording import RecordingServices
from api.services.serving import ServingServices
from auth.errors import InvalidToken, QuotaExceeded, SubjectBarred
from auth.principal import Principal
from auth.quotas.meter import UsageMeter
from auth.quotas.tallies import QuotaCharge
from model.backends.base import ModelInfo, are_compatible
from model.backends.oip.errors import EngineUnavailable
from model.confidence.abstention import AbstentionReason
from model.confidence.policy import AbstentionPolicy
from model.errors import (
    DeadlineExceeded,
    LowConfidence,
    MemoryFull,
    ModelReplaced,
    NotAnAerialImage,
    Overloaded,
    PredictionRefused,
    SetsUnavailable,
    WorkerStuck,
)
from model.serving.memory_budget import Reservation
from model.serving.prediction import Prediction
from model.serving.sources import ImageSource
from monitoring.metrics import Metrics

T = TypeVar("T")
# A method of the service that processes an image, called with it and the keywords reservation, caller and deadline.
Process = Callable[..., Coroutine[Any, Any, T]]

# Maps an error to the HTTP status and the stable code that the ledger records.
ClassifyError = Callable[[BaseException], tuple[int, str]]

# Waiting for more predictions would delay each one, and hardly reduce its share of the commit's cost.
_MAX_LINGER_FOR = 3
SHED_REASONS: dict[type[Exception], str] = {
    Overloaded: "queue_full",
    MemoryFull: "memory",
    DeadlineExceeded: "deadline",
    WorkerStuck: "worker_stuck",
    EngineUnavailable: "engine_unavailable",
    ClientDisconnected: "caller_left",
}
_REFUSALS: dict[AbstentionReason, type[PredictionRefused]] = {
    AbstentionReason.NOT_AERIAL: NotAnAerialImage,
    AbstentionReason.LOW_CONFIDENCE: LowConfidence,
}


class _Outcome(NamedTuple):
    """A prediction yet to be recorded, its cost, and the image file if it is to be kept."""

    prediction: Prediction
    charge: QuotaCharge
    kept_image: bytes | None


class PredictionPipeline:
    """The prediction use case of one process, for any number of transports.

    `longest_s` is the longest that any request may take, in seconds. `policy` applies when the model abstains.
    """

    def __init__(
        self,
        serving: ServingServices,
        recording: RecordingServices,
        meter: UsageMeter,
        metrics: Metrics,
        classify_error: ClassifyError,
        longest_s: float,
        policy: AbstentionPolicy,
    ) -> None:
        self._predictions = serving.predictions
        self._memory = serving.memory
        self._recording = recording
        self._images = recording.images.keeper if recording.images else None
        self._meter = meter
        self._metrics = metrics
        self._get_predictions = cache(metrics.find_predictions)
        self._get_shed = cache(metrics.shed.labels)
        self._commit_seconds = metrics.stage_seconds.labels("commit")
        self._classify_error = classify_error
        self._longest_s = longest_s
        self._policy = policy

    def check_capacity(self, principal: Principal) -> None:
        """Raise Overloaded or WorkerStuck if the principal's request would be rejected now.

        `run` and `dry_run` check this too. A transport calls it first so that a rejected request costs as little as
        possible.
        """
        try:
            self._predictions.check_threads()
            if self._predictions.queue.busy:
                self._predictions.queue.check_capacity(principal.subject)
        except (Overloaded, WorkerStuck) as error:
            self._count_shed(error)
            raise

    async def run(self, request: PredictionRequest[bytes]) -> RecordedPrediction:
        """Classify the image; return once the prediction is durable in the ledger and charged to the quotas.

        Raises Overloaded, MemoryFull, DeadlineExceeded, WorkerStuck, ClientDisconnected, QuotaExceeded, a subclass of
        ImageRejected or PredictionRefused, SetsUnavailable, ExplanationUnavailable, UnknownLabel, LedgerFull,
        LedgerUnavailable, and what `request.read_body` raises.
        """
        async with self._count_refusals(request.origin):
            return await self._record(request, await self._with_image(request, partial(self._predict, request)))

    async def run_batch(self, request: PredictionRequest[BatchBody]) -> list[RecordedPrediction]:
        """Classify the images one after the other, all with the same model; record and charge each like `run` does.

        A batch of several images joins no trial: if the candidate failed on one, another model would classify it.
        The first image that gets no prediction ends the request. The images before it stay recorded and charged.
        Raises ModelReplaced, and what `run` raises.
        """
        results: list[RecordedPrediction] = []
        async with self._count_refusals(request.origin), AsyncExitStack() as memory:
            with self._record_refusals(request.origin):
                self._predictions.check_capacity(request.origin.principal.subject)
                reservation = await memory.enter_async_context(self._reserve_memory(request))
                batch = await read_batch(request, reservation, self._memory.largest, self._longest_s)
            request = replace(request, joins_trial=request.joins_trial and len(batch.images) == 1)
            total_bytes, predict = sum(map(len, batch.images)), partial(self._predict, request)
            for image in batch.images:
                reservation.held = total_bytes - len(image)
                with self._record_refusals(request.origin):
                    outcome = await self._process(request, image, reservation, predict)
                results.append(await self._record(request, outcome))
                if not are_compatible([result.prediction.model for result in results]):
                    raise ModelReplaced
        return results

    async def dry_run(self, request: PredictionRequest[bytes]) -> CostEstimate:
        """Estimate the cost of the request from the image's header; nothing is decoded or charged.

        The request queues like a prediction. Raises what `run` raises except QuotaExceeded and the ledger's errors, and
        also DatabaseUnavailable.
        """
        async with self._count_refusals(request.origin):
            needs = await self._with_image(request, self._predictions.measure)
            with self._record_refusals(request.origin):
                return await estimate_cost(self._meter, request.origin.principal, needs.pixels)

    def record_refusal(self, origin: RequestOrigin, error: BaseException) -> None:
        """Record a request that got no prediction. Transports call this only for requests that never reached `run`."""
        if not isinstance(error, InvalidToken | SubjectBarred):  # revoked meanwhile: the request has no principal
            self._recording.ledger.record_refusal(describe_refusal(origin, *self._classify_error(error)))

    async def _predict(self, request: PredictionRequest[Any], image: ImageSource, **conditions: Any) -> _Outcome:
        charges = list[QuotaCharge]()

        async def admit(pixels: int) -> None:
            charges.append(await self._meter.admit(request.origin.principal, pixels))

        prediction = await self._predictions.predict(
            image,
            admit,
            request.explanation,
            on_stage=request.on_stage,
            joins_trial=request.joins_trial,
            **conditions,
        )
        if request.with_set:
            _check_sets(prediction.model)  # the model may have been replaced while the image arrived
        if prediction.reason is not None and self._policy is AbstentionPolicy.OFF:
            prediction = replace(prediction, reason=None)
        # Only files are kept for training, not decoded pixels.
        is_kept = self._images is not None and self._images.allows(request.origin.principal.subject)
        return _Outcome(prediction, charges[0], image if is_kept and isinstance(image, bytes) else None)

    async def _with_image(self, request: PredictionRequest[bytes], process: Process[T]) -> T:
        """Read the body, and process the image with a method of the service. Record the request if it is rejected.

        The deadline starts when the body has arrived. The upload has its own time limit, which depends on its size, so
        that a slow upload is not reported as a slow gateway.
        """
        with self._record_refusals(request.origin):
            self._predictions.check_capacity(request.origin.principal.subject)
            if request.with_set:
                _check_sets(self._predictions.model)
            if request.explanation is not None:
                self._predictions.check_explanation(request.explanation)
            async with self._reserve_memory(request) as reservation:
                image = await request.read_body()
                reservation.deadline = compute_deadline(request.timeout_s, self._longest_s)
                return await self._process(request, image, reservation, process)

    async def _process(
        self, request: PredictionRequest[Any], image: ImageSource, reservation: Reservation, process: Process[T]
    ) -> T:
        caller, deadline = request.origin.principal.subject, reservation.deadline
        work = process(image, reservation=reservation, caller=caller, deadline=deadline)
        if request.wait_for_disconnect is not None and self._predictions.in_use:
            return await finish_while_connected(work, request.wait_for_disconnect)
        return await work

    def _reserve_memory(self, request: PredictionRequest[Any]) -> AbstractAsyncContextManager[Reservation]:
        amount = estimate_body_bytes(request.content_length, self._memory.largest)
        deadline = compute_deadline(request.timeout_s, self._longest_s)
        return self._memory.reserve(amount, request.origin.principal.subject, deadline)

    async def _record(self, request: PredictionRequest[Any], outcome: _Outcome) -> RecordedPrediction:
        """Record, charge and count the prediction. Raises PredictionRefused if the policy rejects an abstention.

        Callers must not record its errors as rejections: the transaction that rejects a charge records the rejection
        itself, and a ledger that cannot be written cannot record one.
        """
        prediction, charge, kept_image = outcome
        prediction_id = await self._write(request, prediction, charge)
        if prediction.follow_up is not None:
            prediction.follow_up.complete_later(prediction_id)
        self._metrics.count_usage(charge.owners[0], charge.pixels)
        if prediction.reason is not None:
            self._metrics.abstentions.labels(prediction.reason).inc()
            if self._policy is AbstentionPolicy.REFUSE:
                raise _REFUSALS[prediction.reason]
        self._get_predictions(prediction.model.full_name, prediction.label).inc()
        self._metrics.confidence.observe(prediction.confidence)
        if kept_image is not None and self._images is not None:
            self._images.keep_later(request.origin.principal.subject, prediction_id, kept_image)
        return RecordedPrediction(prediction_id, prediction)

    async def _write(self, request: PredictionRequest[Any], prediction: Prediction, charge: QuotaCharge) -> str:
        started = time.perf_counter()
        try:
            # While requests wait for a worker, predictions share transactions, because each commit costs CPU time.
            linger_for = min(self._predictions.queue.waiting, _MAX_LINGER_FOR)
            facts = describe_prediction(request.origin, prediction, self._policy)
            return await self._recording.ledger.record(facts, encode_charge(charge), linger_for=linger_for)
        finally:
            seconds = time.perf_counter() - started
            self._commit_seconds.observe(seconds)
            if request.on_stage is not None:
                request.on_stage("commit", seconds)

    @contextmanager
    def _record_refusals(self, origin: RequestOrigin) -> Iterator[None]:
        try:
            yield
        except (Exception, asyncio.CancelledError) as error:  # the server cancels requests when it ends
            self.record_refusal(origin, error)
            raise

    @asynccontextmanager
    async def _count_refusals(self, origin: RequestOrigin) -> AsyncIterator[None]:
        """Count rejections by reason, and record exceeded quotas in the audit log."""
        try:
            yield
        except QuotaExceeded as error:
            self._metrics.rate_limited.labels("quota").inc()
            await self._recording.audit.record(
                "quota",
                "refused",
                principal=origin.principal,
                address=origin.address,
                request_id=origin.request_id,
                quota=error.quota,
                holder=error.holder,
            )
            raise
        except tuple(SHED_REASONS) as error:
            self._count_shed(error)
            raise

    def _count_shed(self, error: Exception) -> None:
        self._get_shed(SHED_REASONS[type(error)]).inc()


def _check_sets(model: ModelInfo) -> None:
    if model.confidence.sets is None:
        raise SetsUnavailable
