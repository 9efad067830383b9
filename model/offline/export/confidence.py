"""Fit the confidence of an exported model, measure it on the test images, and describe both in the model card."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.backends.base import Backend
from model.backends.onnx import OnnxBackend
from model.confidence.calibration import calibrate
from model.confidence.model import ConfidenceModel
from model.confidence.prediction_sets import ConformalScores
from model.errors import ExportRefused
from model.offline.dataset import find_test_folder, list_images
from model.offline.evaluate import predict_images
from model.offline.export import ExportOptions
from model.offline.export.card import describe_confidence
from model.offline.export.record import TrainingRecord
from model.offline.fitting.confidence import fit_confidence
from model.offline.fitting.scores import measure_sets
from model.offline.fitting.sources import FittingSources, Predictor
from model.offline.gate_report import list_gate_images, measure_gate
from model.offline.reliability import expected_calibration_error

_COVERAGES = (0.9, 0.95, 0.99)


def choose_sources(options: ExportOptions, record: TrainingRecord) -> FittingSources | None:
    """Return what to fit on, or None. Raises ExportRefused when the run did not record its validation split."""
    if options.data is None:
        if options.photographs is not None or options.other_scenes is not None:
            raise ExportRefused("The gate is fitted on the training data, too. Name its folder with --data.")
        return None
    try:
        fraction, seed = float(record.options["validation_fraction"]), int(record.options["seed"])
    except (KeyError, TypeError, ValueError) as error:
        raise ExportRefused(
            'The metrics.json next to the model lacks "options" with the "seed" and "validation_fraction" of training. '
            "Export without --data, or train the model with `atalaya train`."
        ) from error
    photographs, other_scenes = (
        None if folder is None else Path(folder) for folder in (options.photographs, options.other_scenes)
    )
    return FittingSources(Path(options.data), fraction, seed, photographs, other_scenes)


def fit_artefact(folder: Path, sources: FittingSources, origin: str | None) -> tuple[ConfidenceModel, dict[str, Any]]:
    """Fit the model in an artefact folder, and append the results to its card.

    `origin` says where the images came from that are not training data. Returns what was fitted, and members for the
    manifest's results. Raises DatasetError.
    """
    threads = len(os.sched_getaffinity(0))
    with closing(OnnxBackend(folder, threads)) as backend:
        fitted = fit_confidence(Predictor(backend, _announce, threads), sources)
        backend.info = replace(backend.info, confidence=fitted.confidence)
        results = {"confidence": {**fitted.record, **_measure_test(backend, sources, threads)}}
        if fitted.confidence.abstention.gate is not None:
            if origin is not None:
                results["confidence"]["gate"]["origin"] = origin
            results["gate"] = _measure_gate(backend, sources, threads)
    with (folder / "MODEL_CARD.md").open("a", encoding="utf-8") as card:
        card.write("\n" + describe_confidence(fitted.confidence, results))
    return fitted.confidence, results


def _measure_test(backend: Backend, sources: FittingSources, threads: int) -> dict[str, Any]:
    """Return the calibration error, coverage and refusals on the test images, if there are any."""
    folder = find_test_folder(sources.data)
    if folder is None:
        return {}
    files = list_images(folder, backend.info.classes)
    _announce(f"Predicting {len(files)} test images.")
    raw, labels = predict_images(backend, files.paths, threads=threads).probabilities, np.asarray(files.labels)
    confidence = backend.info.confidence
    calibrated, is_correct = calibrate(raw, confidence.temperature), raw.argmax(axis=1) == labels
    unsure = calibrated.max(axis=1) < confidence.abstention.min_confidence
    return {
        "test": {
            "images": len(labels),
            "calibration_error": {
                name: round(expected_calibration_error(part.max(axis=1), is_correct), 4)
                for name, part in (("raw", raw), ("calibrated", calibrated))
            },
            "low_confidence": round(float(unsure.mean()), 4),
            "sets": {} if confidence.sets is None else _measure_sets(confidence.sets, calibrated, labels),
        }
    }


def _measure_sets(
    sets: ConformalScores, calibrated: NDArray[np.float32], labels: NDArray[np.integer]
) -> dict[str, dict[str, float]]:
    results = {}
    for coverage in _COVERAGES:
        covered, size = measure_sets(sets, calibrated, labels, coverage)
        results[str(coverage)] = {"covered": round(covered, 4), "mean_labels": round(size, 3)}
    return results


def _measure_gate(backend: Backend, sources: FittingSources, threads: int) -> dict[str, Any]:
    groups = list_gate_images(backend, sources.data, sources.photographs, sources.other_scenes)
    _announce(f"Measuring the gate on {sum(map(len, groups))} images.")
    return measure_gate(backend, groups, threads=threads).as_dict()


def _announce(text: str) -> None:
    print(text, flush=True)
