"""Run a retraining: from a folder of images and a start model to a candidate with its results."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import keras
import numpy as np
from msgspec import Struct, to_builtins
from msgspec.structs import asdict
from numpy.typing import NDArray

from model.errors import DatasetError
from model.imaging.input_spec import InputSpec
from model.offline.dataset import (
    LabelledFiles,
    LabelledImages,
    compute_list_digest,
    find_test_folder,
    find_validation_folder,
    list_images,
    read_images,
    split_training_data,
)
from model.offline.retrain import CARD, MODEL, RetrainOptions
from model.offline.retrain.budget import Budget
from model.offline.retrain.card import describe_retraining
from model.offline.retrain.comparison import PairedCounts
from model.offline.retrain.features import Features, compute_features
from model.offline.retrain.search import search
from model.offline.retrain.start import read_start
from model.offline.retrain.tail import TailTraining
from model.offline.retrain.trials import SearchResult, parse_search_result
from model.offline.train import PARTS
from model.offline.train.batches import TrainingBatches
from model.offline.train.fit import describe_device
from model.offline.train.network import build_network
from model.offline.train.report import write_report
from model.offline.train.run import evaluate, summarise

_FIT_SHARE = 0.8  # the share of the budget at which the final fit ends; the rest is for evaluation and import
_MAX_FIT_EPOCHS = 12
_BATCH = 32


def retrain(options: RetrainOptions) -> None:
    """Write model.keras, metrics.json and MODEL_CARD.md to `options.out`, unless the run is already finished.

    An interrupted run continues with the next features, trial or epoch. Raises DatasetError.
    """
    out = Path(options.out)
    images = _Images.find(options)
    _start_or_resume(out, options, images)
    if (out / MODEL).exists():
        return
    budget = Budget(out / "budget.json", options.budget_minutes * 60)
    print(f"Retraining on {describe_device()}; {budget} are spent.", flush=True)
    start = read_start(Path(options.start), images.training.classes)
    if find_validation_folder(Path(options.data)) is None:
        start.check_split(len(images.training) + len(images.validation))
    spec = start.input_spec
    network = build_network(len(images.training.classes), options.start, spec)
    training = TailTraining(network, _compute_features(network, images, options, spec, budget), options, spec)
    found = _search(out, training, options, budget)
    test = read_images(images.test, spec)
    start_correct = _find_correct(network, test)
    choice = found.trials[0].choice
    log = training.fit(choice, found.epochs, out / "fit", budget)
    print(f"Comparing with the start model on {len(images.test)} test images.", flush=True)
    splits = {"validation": read_images(images.validation, spec), "test": test}
    results = {split: evaluate(network, each, images.training.classes) for split, each in splits.items()}
    comparison = PairedCounts.of(start_correct, _find_correct(network, test))
    summary = {
        **summarise(training.describe(choice, found.epochs), results, log, images.count()),
        "trained_from": choice.trained_from,
        "comparison": asdict(comparison),
        "search": {"budget_minutes": options.budget_minutes, **to_builtins(found)},
    }
    write_report(out, summary, log.history, images.training.classes)
    with (out / CARD).open("a") as card:
        card.write("\n" + describe_retraining(options.budget_minutes, found, comparison))
    _finish(out, network)


class _Images(Struct, frozen=True):
    training: LabelledFiles
    validation: LabelledFiles
    test: LabelledFiles

    @classmethod
    def find(cls, options: RetrainOptions) -> _Images:
        """List the images of the data set. Raises DatasetError."""
        test = find_test_folder(Path(options.data))
        if test is None:
            raise DatasetError(f"{options.data} has no folder test/, which is needed to compare the models. Add one.")
        fraction, seed = options.validation_fraction, options.seed
        training, validation = split_training_data(Path(options.data), fraction, seed)
        return cls(training, validation, list_images(test, training.classes))

    def compute_digest(self) -> str:
        return compute_list_digest({"train": self.training, "validation": self.validation, "test": self.test})

    def count(self) -> dict[str, int]:
        return {
            "training": len(self.training),
            "extra": 0,
            "validation": len(self.validation),
            "test": len(self.test),
        }


def _start_or_resume(out: Path, options: RetrainOptions, images: _Images) -> None:
    """Raise DatasetError if `out` contains a run with other options or images, whose features would not match."""
    out.mkdir(parents=True, exist_ok=True)
    path, described = out / "options.json", {**asdict(options), "images": images.compute_digest()}
    if path.exists() and json.loads(path.read_text()) != described:
        raise DatasetError(
            f"{out} contains a run with other options or images. Use the same ones, or begin another run: without "
            "--resume, or in another --out."
        )
    path.write_text(json.dumps(described, indent=1) + "\n")


def _compute_features(
    network: keras.Model, images: _Images, options: RetrainOptions, spec: InputSpec, budget: Budget
) -> Features:
    print(f"Reading {len(images.training)} training and {len(images.validation)} validation images.", flush=True)
    batches = TrainingBatches(
        read_images(images.training, spec),
        None,
        classes=len(images.training.classes),
        batch_size=_BATCH,
        seed=options.seed,
        parts=PARTS,
    )
    validation = read_images(images.validation, spec)
    return compute_features(Path(options.out) / "features", network, batches, validation, budget)


def _search(out: Path, training: TailTraining, options: RetrainOptions, budget: Budget) -> SearchResult:
    """Search, unless an earlier process has finished the search, and choose the number of epochs of the final fit."""
    path = out / "search.json"
    if path.exists():
        return parse_search_result(json.loads(path.read_text()))
    start = training.measure_start()
    print(f"Start model: score {start['val_score']:.4f}, accuracy {start['val_accuracy']:.4f}.", flush=True)
    trials = search(out, training, options, budget)
    possible = int(budget.remaining_s(_FIT_SHARE) / trials[0].results["epoch_s"])
    found = SearchResult(trials, start, min(max(possible, 1), _MAX_FIT_EPOCHS))
    temporary = path.with_suffix(".temporary")
    temporary.write_text(json.dumps(to_builtins(found), indent=1) + "\n")
    temporary.replace(path)
    return found


def _find_correct(network: keras.Model, images: LabelledImages) -> NDArray[np.bool_]:
    """Return which images the model classifies correctly, bool [n]."""
    probabilities = network.predict(images.pixels, batch_size=_BATCH, verbose=0)
    correct: NDArray[np.bool_] = probabilities.argmax(axis=1) == images.labels
    return correct


def _finish(out: Path, network: keras.Model) -> None:
    """Write the model last, so that a run with a model is complete. Remove the files that only resuming needs."""
    network.save(out / "unfinished.keras")
    (out / "unfinished.keras").replace(out / MODEL)
    for folder in ("features", "trials", "fit"):
        shutil.rmtree(out / folder, ignore_errors=True)
