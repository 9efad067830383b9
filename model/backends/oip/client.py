"""Sends images to an engine, and once more to another engine if the first did not process them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.backends.oip.connections import ConnectionLost, Reply
from model.backends.oip.endpoints import Endpoint, Endpoints
from model.backends.oip.errors import EngineFailed, EngineUnavailable
from model.backends.oip.events import EngineEvent, EventKind, OnEvent, ignore
from model.backends.oip.metadata import EngineModel
from model.backends.oip.wire import (
    HEADER_LENGTH,
    INPUT_TYPES,
    InferResponse,
    decode_response,
    describe_error,
    encode_request,
)
from model.errors import DeadlineExceeded

# An engine that still accepts connections is ejected after this many consecutive requests without a usable response.
_MAX_ERRORS = 3
# A timeout counts as such a request only if the engine had at least this many seconds to respond.
_MIN_WAIT_TO_COUNT_S = 1.0
_SUM_TOLERANCE = 1e-2  # an engine may compute in half precision
_NOTHING = np.empty(0, np.float32)


class EngineResult(NamedTuple):
    """The outputs, float32 [n, …], the endpoint's label, and the version and digest of the model on that endpoint."""

    outputs: Mapping[str, NDArray[np.float32]]
    endpoint: str
    version: str | None
    digest: str | None


class _Unprocessed(Exception):
    """The engine did not process the request, or did not respond in time, so the request may go to another one."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__()
        self.endpoint = endpoint


class EngineClient:
    """Sends requests for a model whose path is `path` on every endpoint.

    `classes` and `channels` are the model's numbers of classes and of feature maps; `channels` is None if any number is
    accepted. While another engine is available, a request waits for the first one for at most `patience_s` seconds.
    """

    def __init__(self, endpoints: Endpoints, path: str, classes: int, channels: int | None, patience_s: float) -> None:
        self._endpoints = endpoints
        self._path = path
        self._shapes = {"probabilities": (2, classes), "pooled": (2, channels), "features": (4, channels)}
        self._patience_s = patience_s
        self.on_event: OnEvent = ignore

    def infer(self, pixels: NDArray[np.uint8], wanted: Sequence[str], until: float) -> EngineResult:
        """Return the probabilities, and each wanted output that the engine has.

        `until` is a time of time.monotonic(). Raises EngineUnavailable, EngineFailed, DeadlineExceeded.
        """
        try:
            return self._try_endpoint(pixels, wanted, until)
        except _Unprocessed as error:
            self.report(EventKind.RETRIED, error.endpoint)
            avoided = error.endpoint
        try:
            return self._try_endpoint(pixels, wanted, until, avoided)
        except _Unprocessed:
            raise EngineUnavailable from None

    def report(self, kind: EventKind, endpoint: Endpoint, seconds: float = 0.0, detail: str = "") -> None:
        self.on_event(EngineEvent(kind, endpoint.label, seconds, detail))

    def _try_endpoint(
        self, pixels: NDArray[np.uint8], wanted: Sequence[str], until: float, avoided: Endpoint | None = None
    ) -> EngineResult:
        """Try one endpoint. Raises _Unprocessed, EngineUnavailable, EngineFailed, DeadlineExceeded."""
        with self._endpoints.use(until, avoided) as (endpoint, model):
            names = ["probabilities", *(name for name in wanted if name in model.outputs)]
            may_go_to_another = avoided is None and len(self._endpoints.models) > 1
            silent_until = min(until, time.monotonic() + self._patience_s) if may_go_to_another else until
            try:
                response = self._read(endpoint, self._send(endpoint, model, pixels, names, silent_until))
                for name in names:
                    self._check_output(response, name, len(pixels))
            except EngineFailed as error:
                self.report(EventKind.FAILED, endpoint, detail=error.detail)
                self._count_error(endpoint, error.detail)
                raise
            except DeadlineExceeded:
                if time.monotonic() >= until:
                    raise
                raise _Unprocessed(endpoint) from None
            endpoint.errors = endpoint.failures = 0
        return EngineResult(response.outputs, endpoint.label, response.version or model.version, model.digest)

    def _send(
        self, endpoint: Endpoint, model: EngineModel, pixels: NDArray[np.uint8], names: Sequence[str], until: float
    ) -> Reply:
        """Send the request and return the reply. Raises _Unprocessed, EngineFailed, DeadlineExceeded."""
        if (left_s := until - time.monotonic()) <= 0:
            raise DeadlineExceeded
        timeout_us = max(1, int(left_s * 1e6)) if model.takes_timeout else None
        values = pixels.astype(INPUT_TYPES[model.datatype], copy=False)
        body, length = encode_request(model.input_name, values, names, binary=model.binary, timeout_us=timeout_us)
        headers = {"Content-Type": "application/json"}
        if length is not None:
            headers = {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(length)}
        self.report(EventKind.SENT, endpoint)
        started = time.perf_counter()
        try:
            reply = endpoint.connections.exchange("POST", f"{self._path}/infer", until, body, headers)
        except ConnectionLost as error:
            # The engine may have closed a reused connection because of its age, which is not a failure.
            if not error.was_kept:
                self._eject(endpoint, "the connection failed")
            raise _Unprocessed(endpoint) from error
        except DeadlineExceeded:
            if time.perf_counter() - started >= min(_MIN_WAIT_TO_COUNT_S, self._patience_s):
                self._count_error(endpoint, "it does not respond")
            raise
        finally:
            self.report(EventKind.DONE, endpoint, time.perf_counter() - started)
        return reply

    def _read(self, endpoint: Endpoint, reply: Reply) -> InferResponse:
        """Decode a reply; eject the endpoint after status 503. Raises _Unprocessed, EngineFailed."""
        if reply.status == HTTPStatus.SERVICE_UNAVAILABLE:
            self._eject(endpoint, f"status 503: {describe_error(reply.body)}", unless_last=True)
            raise _Unprocessed(endpoint)
        if reply.status != HTTPStatus.OK:
            raise EngineFailed(f"status {reply.status}: {describe_error(reply.body)}")
        return decode_response(reply.body, reply.headers.get(HEADER_LENGTH))

    def _check_output(self, response: InferResponse, name: str, count: int) -> None:
        """Raise EngineFailed unless the output has a row of valid values for each image."""
        values = response.outputs.get(name, _NOTHING)
        sides, last = self._shapes[name]
        has_rows = values.ndim == sides and len(values) == count and values.size > 0
        if not has_rows or last not in (None, values.shape[-1]):
            raise EngineFailed(f"the output {name} has the shape {list(values.shape)}")
        # Values that are not finite cannot be stored in the ledger, whose documents are JSON.
        if not np.isfinite(values).all() or (name == "probabilities" and not _are_probabilities(values)):
            raise EngineFailed(f"the output {name} has impossible values")

    def _count_error(self, endpoint: Endpoint, reason: str) -> None:
        endpoint.errors += 1
        if endpoint.errors >= _MAX_ERRORS:
            self._eject(endpoint, reason, unless_last=True)

    def _eject(self, endpoint: Endpoint, reason: str, *, unless_last: bool = False) -> None:
        if endpoint.model is not None and self._endpoints.eject(endpoint, reason, unless_last=unless_last):
            self.report(EventKind.EJECTED, endpoint, detail=reason)


def _are_probabilities(rows: NDArray[np.float32]) -> bool:
    return bool((rows >= 0).all() and (np.abs(rows.sum(axis=1) - 1) <= _SUM_TOLERANCE).all())
