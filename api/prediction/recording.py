"""What the ledger records of a prediction and of a refusal."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from api.prediction.request import RequestOrigin
from model.serving.prediction import Prediction
from model.serving.runtime import runtime_facts

VERSION = 1


def describe_prediction(origin: RequestOrigin, prediction: Prediction) -> dict[str, Any]:
    """The facts of a prediction, ready for JSON: probabilities at full precision, times in microseconds."""
    info, image = prediction.model, prediction.image
    return {
        **_describe_origin(origin, HTTPStatus.OK, None),
        "model": {"name": info.name, "version": info.version, "digest": info.digest, "backend": info.backend},
        "preprocessing": info.input_spec.preprocessing,
        "runtime": runtime_facts(),
        "image": {
            "sha256": image.sha256,
            "format": image.format,
            "width": image.width,
            "height": image.height,
            "bytes": image.bytes,
            "bit_depth": image.bit_depth,
            "scaling": image.scaling,
            "ground_resolution_m": image.ground_resolution_m,
        },
        "output": {
            "index": prediction.index,
            "label": prediction.label,
            "confidence": prediction.confidence,
            "probabilities": dict(zip(info.classes, prediction.probabilities.tolist(), strict=True)),
        },
        "timing_us": {stage: round(seconds * 1e6) for stage, seconds in prediction.timing.items()},
    }


def describe_refusal(origin: RequestOrigin, status: int, code: str) -> dict[str, Any]:
    """The facts of a request that got no prediction: nothing of the image."""
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
