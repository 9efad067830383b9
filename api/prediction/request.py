"""What a transport passes to the pipeline, and what it gets back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from msgspec import Struct

from auth.principal import Principal
from model.explanation.explanation import ExplanationRequest
from model.serving.prediction import Prediction
from model.serving.queue import OnStage
from model.serving.sources import ImageSource

B = TypeVar("B")
WaitForDisconnect = Callable[[], Awaitable[None]]


class RequestOrigin(Struct, frozen=True):
    """Who sent a request and through which route, for the ledger and the audit log.

    `address` is the client's address, `route` the route's template.
    """

    principal: Principal
    address: str
    request_id: str
    route: str


class ImageBatch(Struct, frozen=True):
    """The images of one body, at least one. `timeout_s` is the time limit in the body, in seconds, if it has one."""

    images: Sequence[ImageSource]
    timeout_s: float | None = None


class BatchBody(Struct, frozen=True):
    """A body of `length` bytes with images. Parsing it takes at most `parsing_bytes` of additional memory."""

    length: int
    parsing_bytes: int
    parse: Callable[[], Awaitable[ImageBatch]]


class PredictionRequest(Struct, Generic[B], frozen=True):
    """A body to classify: an encoded image as bytes, or a BatchBody.

    `read_body` returns it, or raises ClientDisconnected if the client disconnects meanwhile.
    `content_length` is the declared length of the body in bytes, None if the client declared none.
    `timeout_s` is the caller's own limit in seconds; None for the longest that the gateway allows.
    `with_set` requests a prediction set, and `explanation` an explanation. If the model does not support these, the
    request is rejected before its body is read.
    With `joins_trial=False`, the model in service predicts even while a candidate is on trial.
    `wait_for_disconnect` returns once the client has disconnected; without it the pipeline finishes every request.
    `on_stage` is called from any thread when a stage ends, with its name and seconds.
    """

    origin: RequestOrigin
    read_body: Callable[[], Awaitable[B]]
    content_length: int | None = None
    timeout_s: float | None = None
    with_set: bool = False
    explanation: ExplanationRequest | None = None
    joins_trial: bool = True
    wait_for_disconnect: WaitForDisconnect | None = None
    on_stage: OnStage | None = None


class RecordedPrediction(Struct, frozen=True):
    """A prediction with the id (UUIDv7) of its durable ledger entry."""

    id: str
    prediction: Prediction
