"""Builds the ledger's records of predictions and of rejected requests."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from api.prediction.request import RequestOrigin
from model.backends.call import LOCAL, EngineFacts
from model.confidence.policy import AbstentionPolicy
from model.serving.prediction import Prediction
from model.serving.runtime import runtime_facts

# Version 1, of releases up to 0.1.0, has neither `temperature` nor `abstention`.
VERSION = 2


def describe_prediction(origin: RequestOrigin, prediction: Prediction, policy: AbstentionPolicy) -> dict[str, Any]:
    """Return the facts of a prediction, ready for JSON: raw probabilities at full precision, times in microseconds.

    Under the policy `refuse`, an abstention is recorded as a rejected request with a prediction.
    """
    info, image, reason = prediction.model, prediction.image, prediction.reason
    code = reason.value if reason is not None and policy is AbstentionPolicy.REFUSE else None
    status = HTTPStatus.OK if code is None else HTTPStatus.UNPROCESSABLE_ENTITY
    return {
        **_describe_origin(origin, status, code),
        "model": {"name": info.name, "version": info.version, "digest": info.digest or None, "backend": info.backend},
        "preprocessing": info.input_spec.preprocessing,
        **_describe_computation(prediction.engine),
        "image": {
            "sha256": image.sha256,
            "format": image.format,
            "width": image.width,
            "height": image.height,
            "bytes": image.bytes,
            "bit_depth": image.bit_depth,
            "scaling": image.scaling,
            "ground_resolution_m": image.ground_resolution_m,
            "brightness": round(image.brightness, 2),
            "sharpness": round(image.sharpness, 2),
        },
        "output": {
            "index": prediction.index,
            "label": prediction.label,
            "confidence": prediction.confidence,
            "probabilities": dict(zip(info.classes, prediction.probabilities.tolist(), strict=True)),
            "temperature": info.confidence.temperature,
            "gate_score": prediction.gate_score,
            "abstention": {"policy": policy.value, "reason": reason and reason.value},
        },
        "timing_us": {stage: round(seconds * 1e6) for stage, seconds in prediction.timing.items()},
    }


def _describe_computation(engine: EngineFacts | None) -> dict[str, Any]:
    """Return which libraries and which inference engine computed the probabilities."""
    runtime = runtime_facts()
    if engine is None:
        return {"runtime": runtime}
    if engine.endpoint != LOCAL:
        runtime = {name: value for name, value in runtime.items() if name != "onnxruntime"}
    described = {"endpoint": engine.endpoint, "version": engine.version, "digest_source": engine.digest_source}
    return {"runtime": runtime, "engine": described}


def describe_refusal(origin: RequestOrigin, status: int, code: str) -> dict[str, Any]:
    """Return the facts of a request that got no prediction, without the image."""
    nothing = dict.fromkeys(("model", "preprocessing", "runtime", "image", "output"))
    return {**_describe_origin(origin, status, code), **nothing, "timing_us": {}}


def _describe_origin(origin: RequestOrigin, status: int, code: str | None) -> dict[str, Any]:
    return {
        "v": VERSION,
        "request_id": origin.request_id,
        "route": origin.route,
        "principal": origin.principal.subject,
        "key": origin.principal.key_id,
        "status": int(status),
        "code": code,
        "count": 1,
    }
