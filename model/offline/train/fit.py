"""Fit the network: optimiser, learning-rate schedule, loss and callbacks."""

from __future__ import annotations

from pathlib import Path

import keras
import tensorflow as tf

from model.offline.dataset import LabelledImages
from model.offline.train import TrainOptions
from model.offline.train.network import build_network
from model.offline.train.pipeline import make_training_batches, make_validation_batches
from model.offline.train.run_log import RunLog


def fit(
    options: TrainOptions, training: LabelledImages, validation: LabelledImages, classes: int
) -> tuple[keras.Model, RunLog]:
    """Train in the folder `options.out`, resuming there; the model returned has the weights of the last epoch."""
    out = Path(options.out)
    model = build_network(classes, options.init, options.input_spec)
    _compile(model, options, steps_per_epoch=-(-len(training.labels) // options.batch_size))
    log = RunLog(out, options.patience)
    model.fit(
        make_training_batches(training, classes, options.batch_size, options.seed),
        validation_data=make_validation_batches(validation, classes, options.batch_size),
        epochs=options.epochs,
        # The log must be written before the checkpoint: an epoch that is not in the log must not count as complete.
        callbacks=[log, keras.callbacks.BackupAndRestore(out / "checkpoint", double_checkpoint=True)],
        shuffle=False,  # the pipeline shuffles
    )
    return model, log


def describe_device() -> str:
    """Return what TensorFlow trains on, such as "CPU" or "1 GPU"."""
    return f"{_count_gpus()} GPU" if _count_gpus() else "CPU"


def _compile(model: keras.Model, options: TrainOptions, steps_per_epoch: int) -> None:
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        decay_steps=max(1, (options.epochs - 1) * steps_per_epoch),
        warmup_target=options.peak_learning_rate,
        warmup_steps=steps_per_epoch,
    )
    model.compile(
        optimizer=keras.optimizers.AdamW(schedule, weight_decay=1e-4),
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=0.1),
        metrics=["accuracy"],
        # On a CPU, XLA's convolutions take eight times as long as TensorFlow's own.
        jit_compile="auto" if _count_gpus() else False,
    )
    # Create the optimiser's variables now: creating them in the first step would trace and compile that step twice.
    model.optimizer.build(model.trainable_variables)


def _count_gpus() -> int:
    return len(tf.config.list_physical_devices("GPU"))
