"""The members "calibration", "abstention" and "prediction_sets" of a manifest. All of them are optional."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.confidence.abstention import AbstentionReason, AbstentionRules, AerialGate
from model.confidence.model import ConfidenceModel
from model.confidence.prediction_sets import ConformalScores
from model.signing.documents import parse_number

_DECIMALS = 7


def describe_confidence(confidence: ConfidenceModel) -> dict[str, Any]:
    """Return the members for JSON, without default values."""
    members: dict[str, Any] = {}
    if confidence.temperature != 1:
        members["calibration"] = {"temperature": confidence.temperature}
    rules = confidence.abstention
    abstention: dict[str, Any] = {}
    if rules.gate is not None:
        weights = _to_list(rules.gate.weights)
        abstention[AbstentionReason.NOT_AERIAL.value] = {"weights": weights, "bias": rules.gate.bias}
    if rules.min_confidence > 0:
        abstention[AbstentionReason.LOW_CONFIDENCE.value] = {"min_confidence": rules.min_confidence}
    if abstention:
        members["abstention"] = abstention
    if confidence.sets is not None:
        members["prediction_sets"] = {"scores": _to_list(confidence.sets.scores)}
    return members


def parse_confidence(document: Mapping[str, Any]) -> ConfidenceModel:
    """Read the members of a manifest. Raises ValueError, TypeError, KeyError, OverflowError."""
    temperature = parse_number(document.get("calibration", {}).get("temperature", 1.0))
    if temperature <= 0:
        raise ValueError(f"its temperature is {temperature}")
    abstention = document.get("abstention", {})
    gate = abstention.get(AbstentionReason.NOT_AERIAL.value)
    low_confidence = abstention.get(AbstentionReason.LOW_CONFIDENCE.value, {"min_confidence": 0.0})
    sets = document.get("prediction_sets")
    return ConfidenceModel(
        temperature=temperature,
        abstention=AbstentionRules(
            gate=None if gate is None else AerialGate(_parse_array(gate["weights"]), parse_number(gate["bias"])),
            min_confidence=parse_number(low_confidence["min_confidence"]),
        ),
        sets=None if sets is None else ConformalScores(np.sort(_parse_array(sets["scores"]))),
    )


def _to_list(array: NDArray[np.float32]) -> list[float]:
    return [round(value, _DECIMALS) for value in array.tolist()]


def _parse_array(values: Sequence[float]) -> NDArray[np.float32]:
    array = np.asarray([parse_number(value) for value in values])
    if not array.size:
        raise ValueError("a list of numbers is empty")
    if np.abs(array).max() > np.finfo(np.float32).max:
        raise ValueError("a number is too large for float32")
    return array.astype(np.float32)
