"""The back end that sends images to inference engines, over the Open Inference Protocol v2."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from model.backends.base import Backend, ModelInfo, Weights
from model.backends.call import LOCAL, BackendCall, DigestSource, EngineFacts, current_call
from model.backends.oip.address import EngineAddress
from model.backends.oip.checks import EndpointChecks, describe_admission, describe_ejection
from model.backends.oip.client import EngineClient
from model.backends.oip.connections import PLAIN, Transport
from model.backends.oip.endpoints import Endpoints
from model.backends.oip.errors import EngineUnavailable
from model.backends.oip.events import EngineEvent, EventKind, OnEvent
from model.backends.oip.metadata import read_metadata
from model.errors import DeadlineExceeded, ExplanationUnavailable
from model.explanation.head import Head, read_head
from model.registry.artefact import Manifest, read_manifest

Floats = NDArray[np.float32]

START_LIMIT_S = 30.0
"""How long the gateway waits at start-up for an engine to be ready."""


class EngineOptions(Struct, frozen=True):
    """`folder` holds the manifest of the model. `local` is the fallback if no engine responds.

    At most `in_flight` requests go to one engine at once. A prediction waits for engines for at most `longest_s`
    seconds, and for the first engine for half of that time if another one works.
    """

    folder: Path
    transport: Transport = PLAIN
    in_flight: int = 16
    local: Backend | None = None
    longest_s: float = 30.0


class OipBackend:
    """Sends pixels to the engines at an address. `manifest` describes the model: its classes, calibration and gate.

    Call `connect` before the first prediction.
    """

    def __init__(self, address: EngineAddress, manifest: Manifest, head: Head | None, options: EngineOptions) -> None:
        self._head = head
        self._local = options.local
        self._longest_s = options.longest_s
        self._get_info = cache(partial(_describe, address, manifest))
        self.info = self._get_info(None)
        self.weights: Weights | None = None
        self._endpoints = Endpoints(options.in_flight, keeps_last=options.local is None)
        classes, channels = len(manifest.classes), _count_channels(manifest, head)
        self._client = EngineClient(self._endpoints, address.path, classes, channels, options.longest_s / 2)
        read = partial(read_metadata, address=address, manifest=manifest, channels=channels)
        self._checks = EndpointChecks(address, options.transport, self._endpoints, read, self._report)

    def connect(self, wait_s: float = START_LIMIT_S) -> None:
        """Wait for at most `wait_s` seconds until an engine works. With a local model, only check once.

        Raises EngineMismatch, EngineUnavailable.
        """
        try:
            self._checks.start(wait_s if self._local is None else 0.0)
        except EngineUnavailable:
            if self._local is None:
                raise
        self._checks.follow()

    def subscribe(self, on_event: OnEvent) -> None:
        """Call `on_event` with the current state of each endpoint now, and later with each event, from any thread."""
        self._client.on_event = on_event
        for endpoint in self._endpoints.all:
            if (model := endpoint.model) is not None:
                on_event(describe_admission(endpoint, model))
            elif endpoint.problem:
                on_event(describe_ejection(endpoint))

    @property
    def problem(self) -> str | None:
        """The problem to report for readiness, or None.

        "fallback" while no engine works, "no_gate" while an engine lacks the pooled features for the model's gate.

        Raises EngineUnavailable if no engine works and there is no local model.
        """
        models = self._endpoints.models
        if not models and self._local is None:
            raise EngineUnavailable
        if not models:
            return "fallback"
        has_gate = self.info.confidence.abstention.gate is not None
        return "no_gate" if has_gate and any("pooled" not in model.outputs for model in models) else None

    @property
    def head(self) -> Head | None:
        models = self._endpoints.models
        if not models:
            return None if self._local is None else self._local.head
        return self._head if all("features" in model.outputs for model in models) else None

    def predict(self, pixels: NDArray[np.uint8]) -> Floats:
        return self._run(pixels, ())["probabilities"]

    def predict_pooled(self, pixels: NDArray[np.uint8]) -> tuple[Floats, Floats]:
        """Return the probabilities and the pooled features, float32 [n, 0] if the engine has none."""
        outputs = self._run(pixels, ("pooled",))
        return outputs["probabilities"], outputs.get("pooled", np.empty((len(pixels), 0), np.float32))

    def predict_with_features(self, pixels: NDArray[np.uint8]) -> tuple[Floats, Floats]:
        """Return the probabilities and the last feature maps.

        Raises ExplanationUnavailable if the engine has no features; `head` may have checked other engines.
        """
        outputs = self._run(pixels, ("features",))
        if "features" not in outputs:
            raise ExplanationUnavailable
        return outputs["probabilities"], outputs["features"]

    def release_memory(self) -> None:
        if self._local is not None:
            self._local.release_memory()

    def close(self) -> None:
        self._checks.stop()
        self._endpoints.close()
        if self._local is not None:
            self._local.close()

    def _run(self, pixels: NDArray[np.uint8], wanted: Sequence[str]) -> Mapping[str, Floats]:
        """Return the probabilities, and each wanted output that the engine has.

        Raises EngineUnavailable, EngineFailed, DeadlineExceeded.
        """
        call = current_call()
        try:
            result = self._client.infer(pixels, wanted, min(call.deadline, time.monotonic() + self._longest_s))
        except (EngineUnavailable, DeadlineExceeded) as error:
            if isinstance(error, DeadlineExceeded) and time.monotonic() >= call.deadline:
                raise
            if self._local is None:
                raise EngineUnavailable from error
            return self._fall_back(self._local, pixels, wanted, call)
        call.model = self._get_info(result.digest)
        source = DigestSource.METADATA if result.digest else None
        call.engine = EngineFacts(result.endpoint, result.version, source)
        return result.outputs

    def _fall_back(
        self, local: Backend, pixels: NDArray[np.uint8], wanted: Sequence[str], call: BackendCall
    ) -> Mapping[str, Floats]:
        self._report(EngineEvent(EventKind.FELL_BACK))
        call.model = local.info
        call.engine = EngineFacts(LOCAL, local.info.version, DigestSource.ARTEFACT)
        name, predict = "pooled", local.predict_pooled
        if "features" in wanted:
            name, predict = "features", local.predict_with_features
        # One image at a time: a batch needs memory for all its images, and a CPU computes it no faster.
        rows = [predict(pixels[index : index + 1]) for index in range(len(pixels))]
        probabilities, others = zip(*rows, strict=True)
        return {"probabilities": np.concatenate(probabilities), name: np.concatenate(others)}

    def _report(self, event: EngineEvent) -> None:
        self._client.on_event(event)


def open_engines(address: EngineAddress, options: EngineOptions, signed: Mapping[str, str] | None = None) -> OipBackend:
    """Open the model at an address. `read_manifest` explains `signed`.

    Raises ArtefactError, EngineMismatch, EngineUnavailable.
    """
    manifest = read_manifest(options.folder, signed)
    backend = OipBackend(address, manifest, read_head(options.folder, manifest), options)
    backend.connect()
    return backend


def _describe(address: EngineAddress, manifest: Manifest, digest: str | None) -> ModelInfo:
    """Describe the model from its manifest, but with the digest that an engine reports."""
    scheme = "oip+https" if address.tls else "oip+http"
    return ModelInfo(
        manifest.name,
        manifest.version,
        digest or "",
        scheme,
        manifest.classes,
        replace(manifest.input_spec, dtype="uint8"),
        manifest.confidence,
    )


def _count_channels(manifest: Manifest, head: Head | None) -> int | None:
    """Return how many pooled features the gate and the head take, or None if there is neither."""
    gate = manifest.confidence.abstention.gate
    if gate is not None:
        return len(gate.weights)
    return None if head is None else len(head.layers[0].kernel)
