"""Run a training: from a folder of images to a `.keras` file with its results."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
from pathlib import Path
from typing import Any

import keras
from msgspec import to_builtins

from model.errors import DatasetError
from model.offline.dataset import (
    LabelledFiles,
    LabelledImages,
    find_test_folder,
    list_images,
    read_images,
    split_training_data,
)
from model.offline.metrics import EvaluationResults, compute_results
from model.offline.train import TrainOptions, parse_options
from model.offline.train.batches import TrainingBatches
from model.offline.train.fit import describe_device, fit
from model.offline.train.provenance import describe_init
from model.offline.train.report import write_report
from model.offline.train.run_log import RunLog
from model.offline.train.validation import Validation, measure_robustness

_TOOLS = ("keras", "tensorflow", "numpy", "pillow")


def train(options: TrainOptions) -> dict[str, Any]:
    """Fine-tune, write model.keras, metrics.json, MODEL_CARD.md and plots to `options.out`, and return the metrics.

    An interrupted run continues after its last complete epoch. The test images, if there are any, are read once,
    after the epoch has been chosen. Raises DatasetError.
    """
    out = Path(options.out)
    _start_or_resume(out, options)
    keras.utils.set_random_seed(options.seed)
    print(f"Training on {describe_device()}.", flush=True)
    training_files, validation_files = split_training_data(
        Path(options.data), options.validation_fraction, options.seed
    )
    classes = training_files.classes
    extra_files = _list_extra_images(options, classes)
    training = _read("training", training_files, options)
    extra = None if extra_files is None else _read("extra training", extra_files, options)
    validation = _read("validation", validation_files, options)
    batches = TrainingBatches(
        training,
        extra,
        classes=len(classes),
        batch_size=options.batch_size,
        seed=options.seed,
        parts=options.parts,
    )
    model, log = fit(options, batches, Validation.of(validation), len(classes))
    splits = {"validation": validation}
    test_files = _list_test_images(options, classes)
    if test_files is not None:
        splits["test"] = _read("test", test_files, options)
    results = {split: evaluate(model, images, classes) for split, images in splits.items()}
    robustness = {split: measure_robustness(model, images) for split, images in splits.items()}
    counts = {
        "training": len(training_files),
        "extra": len(extra_files or ()),
        "validation": len(validation_files),
        "test": len(test_files or ()),
    }
    summary = {**summarise(options, results, log, counts), "robustness": robustness}
    write_report(out, summary, log.history, classes)
    # The model is written last, so that a run with a model is complete.
    model.save(out / "unfinished.keras")
    (out / "unfinished.keras").replace(out / "model.keras")
    log.remove_state()
    return summary


def _start_or_resume(out: Path, options: TrainOptions) -> None:
    """Raise DatasetError if `out` contains a finished run, or an unfinished one with other options."""
    out.mkdir(parents=True, exist_ok=True)
    if (out / "model.keras").exists():
        raise DatasetError(f"{out} contains a finished run. Choose another --out.")
    path = out / "options.json"
    if path.exists() and parse_options(json.loads(path.read_text())) != options:
        raise DatasetError(f"{out} contains a run with other options. Use the same options, or choose another --out.")
    path.write_text(json.dumps(to_builtins(options), indent=1) + "\n")


def evaluate(model: keras.Model, images: LabelledImages, classes: tuple[str, ...]) -> EvaluationResults:
    """Measure a model, whose input is float in 0..255, on labelled images."""
    return compute_results(model.predict(images.pixels, batch_size=32, verbose=0), images.labels, classes)


def _list_extra_images(options: TrainOptions, classes: tuple[str, ...]) -> LabelledFiles | None:
    """List the images of `options.extra` in folders named after classes. Other folders are ignored."""
    return None if options.extra is None else list_images(Path(options.extra), classes, skip_unknown=True)


def _list_test_images(options: TrainOptions, classes: tuple[str, ...]) -> LabelledFiles | None:
    folder = find_test_folder(Path(options.data))
    return None if folder is None else list_images(folder, classes)


def _read(split: str, files: LabelledFiles, options: TrainOptions) -> LabelledImages:
    print(f"Reading {len(files)} {split} images.", flush=True)
    return read_images(files, options.input_spec)


def summarise(
    options: TrainOptions, results: dict[str, EvaluationResults], log: RunLog, counts: dict[str, int]
) -> dict[str, Any]:
    """Return the contents of metrics.json for a run. `results` and `counts` are by split."""
    return {
        "data": {"name": "UC Merced Land Use", "images": counts},
        "init": describe_init(options.init),
        "input": dataclasses.asdict(options.input_spec),
        "options": {
            name: value for name, value in to_builtins(options).items() if name not in {"data", "init", "out", "extra"}
        },
        "epochs_run": len(log.history),
        "best_epoch": log.best_epoch + 1,
        "tools": {name: importlib.metadata.version(name) for name in _TOOLS},
        **{split: split_results.as_dict() for split, split_results in results.items()},
    }
