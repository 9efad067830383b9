"""One run, from a folder of images to a judged `.keras` file."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from model.errors import DatasetError
from model.offline.dataset import (
    LabelledFiles,
    Pixels,
    held_out_folder,
    list_images,
    read_pixels,
    stratified_split,
    training_folder,
)
from model.offline.metrics import EvaluationResults, measure
from model.offline.train import TrainOptions
from model.offline.train.network import build_network
from model.offline.train.pipeline import training_batches, validation_batches
from model.offline.train.progress import RunLog
from model.offline.train.report import write_report

_TOOLS = ("keras", "tensorflow", "numpy", "pillow")


def train(options: TrainOptions) -> dict[str, Any]:
    """Fine-tune, then write model.keras, metrics.json, MODEL_CARD.md and two PNGs into `options.out`.

    An interrupted run resumes at its last whole epoch. The test images, where the data has them, are read
    once, after the last choice was made. Raises DatasetError.
    """
    out = Path(options.out)
    _claim(out, options)
    keras.utils.set_random_seed(options.seed)
    print(f"Training on {_device()}.", flush=True)
    kept, held = stratified_split(
        list_images(training_folder(Path(options.data))), options.validation_fraction, options.seed
    )
    training, validation = _read("training", kept), _read("validation", held)
    model, log = _fit(options, out, training, validation, len(kept.classes))
    model.load_weights(log.best_weights_path)
    results = {"validation": _judge(model, validation, kept.classes)}
    test = _test_files(options, kept.classes)
    if test is not None:
        results["test"] = _judge(model, _read("test", test), kept.classes)
    # A model of the same layers that was never compiled: the optimiser's state would treble the file.
    keras.Model(model.input, model.output, name=model.name).save(out / "model.keras")
    summary = _summary(options, results, log, {"training": len(kept), "validation": len(held), "test": len(test or ())})
    write_report(out, summary, log.history, kept.classes)
    return summary


def _claim(out: Path, options: TrainOptions) -> None:
    """Start or resume `out`. Raises DatasetError when it holds a finished run or one with other options."""
    out.mkdir(parents=True, exist_ok=True)
    if (out / "model.keras").exists():
        raise DatasetError(f"{out} holds a finished run. Give another --out.")
    record = out / "options.json"
    wanted = asdict(options)
    if record.exists() and json.loads(record.read_text()) != wanted:
        raise DatasetError(f"{out} holds a run begun with other options. Repeat those, or give another --out.")
    record.write_text(json.dumps(wanted, indent=1) + "\n")


def _fit(
    options: TrainOptions, out: Path, training: Pixels, validation: Pixels, classes: int
) -> tuple[keras.Model, RunLog]:
    model = build_network(classes, options.init)
    steps = -(-len(training.labels) // options.batch_size)
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        decay_steps=max(1, (options.epochs - 1) * steps),
        warmup_target=options.peak_learning_rate,
        warmup_steps=steps,
    )
    model.compile(
        optimizer=keras.optimizers.AdamW(schedule, weight_decay=1e-4),
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=0.1),
        metrics=["accuracy"],
        # On a CPU, XLA's convolutions take eight times as long as TensorFlow's own.
        jit_compile="auto" if _gpus() else False,
    )
    # Else its variables are made while the first step is traced, which is then traced, and compiled, twice.
    model.optimizer.build(model.trainable_variables)
    log = RunLog(out, options.patience)
    model.fit(
        training_batches(training, classes, options.batch_size, options.seed),
        validation_data=validation_batches(validation, classes, options.batch_size),
        epochs=options.epochs,
        # The log comes first: an epoch that it lacks must not count as done.
        callbacks=[log, keras.callbacks.BackupAndRestore(out / "checkpoint", double_checkpoint=True)],
        shuffle=False,  # the pipeline shuffles
    )
    return model, log


def _judge(model: keras.Model, pixels: Pixels, classes: tuple[str, ...]) -> EvaluationResults:
    return measure(model.predict(pixels.images, batch_size=32, verbose=0), pixels.labels, classes)


def _test_files(options: TrainOptions, classes: tuple[str, ...]) -> LabelledFiles | None:
    folder = held_out_folder(Path(options.data))
    return None if folder is None else list_images(folder, classes)


def _read(name: str, files: LabelledFiles) -> Pixels:
    print(f"Reading {len(files)} {name} images.", flush=True)
    return read_pixels(files)


def _summary(
    options: TrainOptions, results: dict[str, EvaluationResults], log: RunLog, counts: dict[str, int]
) -> dict[str, Any]:
    return {
        "data": {"name": "UC Merced Land Use", "images": counts},
        "init": _origin(options.init),
        "options": {name: value for name, value in asdict(options).items() if name not in {"data", "init", "out"}},
        "epochs_run": len(log.history),
        "best_epoch": log.best_epoch + 1,
        "tools": {name: importlib.metadata.version(name) for name in _TOOLS},
        **{name: values.as_dict() for name, values in results.items()},
    }


def _origin(init: str) -> dict[str, str]:
    if init == "imagenet":
        return {"name": "imagenet", "source": "keras.applications"}
    path = Path(init)
    return {"name": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "source": _source(path)}


def _source(path: Path) -> str:
    """Where the weights come from, by what lies beside them: an earlier run's record, or a README."""
    record, readme = path.with_name("metrics.json"), path.with_name("README.md")
    if record.exists():
        earlier = json.loads(record.read_text())
        options = earlier["options"]
        return (
            f"An earlier run of this training on the same split ({earlier['epochs_run']} epochs, batch "
            f"{options['batch_size']}, peak learning rate {options['peak_learning_rate']}), which began with "
            f"`{earlier['init']['name']}`. {earlier['init']['source']}"
        )
    return _origin_paragraph(readme.read_text()) if readme.exists() else "Not stated beside the file."


def _origin_paragraph(readme: str) -> str:
    """The list item that begins with "Origin", unwrapped; the whole text where there is none."""
    for item in readme.split("\n- "):
        if item.startswith("Origin"):
            return " ".join(item.split())
    return " ".join(readme.split())


def _device() -> str:
    return f"{_gpus()} GPU" if _gpus() else "CPU"


def _gpus() -> int:
    return len(tf.config.list_physical_devices("GPU"))
