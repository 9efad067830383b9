"""Build and record predictions of real images, some of which differ from the training images."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from model.registry.artefact import read_manifest
from tests.model.drift.features import read_features
from tests.monitoring.quality.entries import append
from tests.support.paths import ARTEFACT

DARK = "test, brightness x0.6"
_MANIFEST = read_manifest(ARTEFACT)
_MODEL = {
    "name": _MANIFEST.name,
    "version": _MANIFEST.version,
    "digest": _MANIFEST.files["model.onnx"].sha256,
    "backend": "onnx",
}


def build_predictions(group: str, count: int, principal: str = "ana") -> list[dict[str, Any]]:
    """The ledger facts of predictions for images of a group, as the gateway records them."""
    images = read_features()[group]
    chosen = images.select([(7 * number) % len(images) for number in range(count)])
    facts = []
    for index, row in zip(chosen.classes.tolist(), chosen.measures.tolist(), strict=True):
        confidence, gate_score, brightness, sharpness, side = row
        image = {"width": round(side), "height": round(side), "brightness": brightness, "sharpness": sharpness}
        output = {
            "label": _MANIFEST.classes[index],
            "confidence": confidence,
            "gate_score": gate_score,
            "abstention": {"policy": "mark", "reason": None},
        }
        one = {"v": 2, "principal": principal, "status": 200, "code": None}
        facts.append({**one, "model": _MODEL, "image": image, "output": output})
    return facts


def record(url: str, facts: Sequence[dict[str, Any]], minutes_ago: int = 0) -> datetime:
    """Append predictions to a chain of their own; returns their time."""
    at = datetime.now(UTC) - timedelta(minutes=minutes_ago)
    append(url, facts, at)
    return at
