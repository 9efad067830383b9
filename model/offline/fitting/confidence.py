"""Fit the confidence settings of a model's manifest on images that training held out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from model.confidence.abstention import AbstentionRules
from model.confidence.calibration import calibrate
from model.confidence.model import ConfidenceModel
from model.offline.fitting.gate import GateFeatures, fit_aerial_gate
from model.offline.fitting.scores import compute_scores
from model.offline.fitting.sources import (
    FittingSources,
    Predictor,
    ValidationOutputs,
    compute_gate_features,
    predict_validation,
)
from model.offline.fitting.temperature import fit_temperature
from model.offline.fitting.thresholds import choose_min_confidence
from model.quality.reliability import expected_calibration_error

_CLEAN_SHARE = 0.5  # the weight of the clean images in the log loss; the changed images have the rest
_DECIMALS = 4


class FittedConfidence(Struct, frozen=True):
    """The fitted model, and a record for the manifest: the number of images, and the results on them."""

    confidence: ConfidenceModel
    record: Mapping[str, Any]


def fit_confidence(predictor: Predictor, sources: FittingSources) -> FittedConfidence:
    """Fit the temperature, the abstention rules and the conformal scores. Raises DatasetError."""
    training, validation_files = sources.split(predictor.backend.info.classes)
    validation = predict_validation(predictor, validation_files)
    if sources.photographs is None:
        return fit_to_outputs(validation)
    features = compute_gate_features(predictor, training, validation, sources.photographs, sources.other_scenes)
    predictor.announce("Fitting the gate.")
    return fit_to_outputs(validation, features)


def fit_to_outputs(validation: ValidationOutputs, features: GateFeatures | None = None) -> FittedConfidence:
    """Fit to the outputs of a model; without `features`, no gate is fitted."""
    temperature = _fit_temperature(validation)
    clean = calibrate(validation.clean.probabilities, temperature)
    changed = calibrate(validation.changed.probabilities, temperature)
    is_correct = changed.argmax(axis=1) == validation.changed_labels
    min_confidence = choose_min_confidence(clean.max(axis=1), changed.max(axis=1), is_correct)
    record = {
        "validation_images": {"clean": len(clean), "changed": len(changed)},
        "calibration_error": {
            "clean": _compare_errors(validation.clean.probabilities, clean, validation.labels),
            "changed": _compare_errors(validation.changed.probabilities, changed, validation.changed_labels),
        },
        "low_confidence": {
            "clean": round(float((clean.max(axis=1) < min_confidence).mean()), _DECIMALS),
            "changed": round(float((changed.max(axis=1) < min_confidence).mean()), _DECIMALS),
            "accuracy_of_accepted": round(float(is_correct[changed.max(axis=1) >= min_confidence].mean()), _DECIMALS),
        },
    }
    gate = None
    if features is not None:
        gate, record["gate"] = fit_aerial_gate(features)
    sets = compute_scores(clean, validation.labels)
    return FittedConfidence(ConfidenceModel(temperature, AbstentionRules(gate, min_confidence), sets), record)


def _fit_temperature(validation: ValidationOutputs) -> float:
    clean, changed = len(validation.labels), len(validation.changed_labels)
    weights = np.concatenate([np.full(clean, _CLEAN_SHARE / clean), np.full(changed, (1 - _CLEAN_SHARE) / changed)])
    probabilities = np.concatenate([validation.clean.probabilities, validation.changed.probabilities])
    return fit_temperature(probabilities, np.concatenate([validation.labels, validation.changed_labels]), weights)


def _compare_errors(
    raw: NDArray[np.float32], calibrated: NDArray[np.float32], labels: NDArray[np.int64]
) -> dict[str, float]:
    """Return the expected calibration error before and after calibration."""
    is_correct = raw.argmax(axis=1) == labels
    return {
        name: round(expected_calibration_error(probabilities.max(axis=1), is_correct), _DECIMALS)
        for name, probabilities in (("raw", raw), ("calibrated", calibrated))
    }
