"""Fit the confidence of an exported model, measure it on the test images, and append both to the model card."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from typing import Any

from msgspec.structs import asdict, replace

from model.backends.base import Backend
from model.backends.onnx import OnnxBackend
from model.confidence.model import ConfidenceModel
from model.drift.reference import Reference
from model.errors import ExportRefused
from model.offline.dataset import find_test_folder, list_images
from model.offline.evaluate import evaluate, predict_images
from model.offline.export import ExportOptions
from model.offline.export.card import describe_confidence
from model.offline.export.record import TrainingRecord
from model.offline.fitting.confidence import fit_confidence
from model.offline.fitting.drift_reference import measure_reference
from model.offline.fitting.sources import FittingSources, Predictor
from model.offline.gate_report import list_gate_images, measure_gate

_COVERAGES = (0.9, 0.95, 0.99)
# One half of the images that the model has not seen is for fitting, the other for measuring.
_HELD_OUT_FRACTION, _HELD_OUT_SEED = 0.5, 20260101


def choose_sources(options: ExportOptions, record: TrainingRecord) -> FittingSources | None:
    """Return the images to fit on, or None. Raises ExportRefused if the run did not record its validation split."""
    if options.data is None:
        if options.photographs is not None or options.other_scenes is not None:
            raise ExportRefused("The gate is fitted on the training data, too. Name its folder with --data.")
        return None
    if options.held_out and not record.options:
        return FittingSources(Path(options.data), _HELD_OUT_FRACTION, _HELD_OUT_SEED, *_find_others(options))
    try:
        fraction, seed = float(record.options["validation_fraction"]), int(record.options["seed"])
    except (KeyError, TypeError, ValueError) as error:
        raise ExportRefused(
            'The metrics.json next to the model lacks "options" with the "seed" and "validation_fraction" of training. '
            "Export without --data, or train the model with `atalaya train`."
        ) from error
    return FittingSources(Path(options.data), fraction, seed, *_find_others(options))


def _find_others(options: ExportOptions) -> tuple[Path | None, Path | None]:
    folders = (options.photographs, options.other_scenes)
    photographs, other_scenes = (None if folder is None else Path(folder) for folder in folders)
    return photographs, other_scenes


def fit_artefact(
    folder: Path, sources: FittingSources, origin: str | None
) -> tuple[ConfidenceModel, dict[str, Any], Reference | None]:
    """Fit the model in an artefact folder, and append the results to its card.

    `origin` names the sources of the images that are not training data. Returns the fitted model, members for the
    manifest's results, and the drift reference if there are enough validation images. Raises DatasetError.
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
        drift = measure_reference(backend, sources.split(backend.info.classes)[1].paths, threads)
    with (folder / "MODEL_CARD.md").open("a", encoding="utf-8") as card:
        card.write("\n" + describe_confidence(fitted.confidence, results))
    return fitted.confidence, results, drift


def _measure_test(backend: Backend, sources: FittingSources, threads: int) -> dict[str, Any]:
    """Return the calibration error, coverage and rejections on the test images, if there are any."""
    folder = find_test_folder(sources.data)
    if folder is None:
        return {}
    files = list_images(folder, backend.info.classes)
    _announce(f"Predicting {len(files)} test images.")
    outputs = predict_images(backend, files.paths, threads=threads)
    evaluations = [evaluate(outputs, files, backend.info, coverage) for coverage in _COVERAGES]
    first = evaluations[0]
    return {
        "test": {
            "images": len(files),
            "calibration_error": {"raw": round(first.raw.ece, 4), "calibrated": round(first.served.ece, 4)},
            "abstention": first.abstention and asdict(first.abstention),
            "sets": [asdict(each.sets) for each in evaluations if each.sets is not None],
        }
    }


def _measure_gate(backend: Backend, sources: FittingSources, threads: int) -> dict[str, Any]:
    groups = list_gate_images(backend, sources.data, sources.photographs, sources.other_scenes)
    _announce(f"Measuring the gate on {sum(map(len, groups))} images.")
    return measure_gate(backend, groups, threads=threads).as_dict()


def _announce(text: str) -> None:
    print(text, flush=True)
