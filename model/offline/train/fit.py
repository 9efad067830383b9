"""Fit the network: optimiser, learning-rate schedule, loss, and the stages of a run."""

from __future__ import annotations

from pathlib import Path

import keras
import tensorflow as tf

from model.offline.train import TrainOptions
from model.offline.train.batches import TrainingBatches
from model.offline.train.network import build_network, copy_weights, make_trainable_copy
from model.offline.train.run_log import RunLog
from model.offline.train.statistics import estimate_statistics
from model.offline.train.validation import Validation

_AVERAGE_MOMENTUM = 0.97  # per step: an average over about 30 steps
_STATISTICS_BATCHES = 12


def fit(
    options: TrainOptions, batches: TrainingBatches, validation: Validation, classes: int
) -> tuple[keras.Model, RunLog]:
    """Train, or resume, in the folder `options.out`. Return the network with the weights of the best epoch."""
    log = RunLog(Path(options.out))
    served = build_network(classes, options.init, options.input_spec)
    model = make_trainable_copy(served)
    compile_model(model, options, batches.steps)
    log.restore(model)
    for epoch in range(len(log.history), options.epochs):
        stage = options.find_stage(epoch)
        print(f"Epoch {epoch + 1} of {options.epochs}, {stage.size} pixels", flush=True)
        results = model.fit(batches.of_epoch(epoch, stage.size), verbose="auto")
        # On unmixed images, because only those will be served.
        estimate_statistics(model, batches.of_epoch(epoch, stage.size, mixed=False).take(_STATISTICS_BATCHES))
        metrics = validation.measure(model)
        print("  " + ", ".join(f"{name} {value:.4f}" for name, value in metrics.items()), flush=True)
        training = {name: float(values[-1]) for name, values in results.history.items()}
        log.append({**training, **metrics, "size": stage.size}, model)
        log.save_state(model)
    model.load_weights(log.best_weights_path)
    copy_weights(model, served)
    return served, log


def describe_device() -> str:
    """Return the device that TensorFlow trains on, such as "CPU" or "1 GPU"."""
    return f"{_count_gpus()} GPU" if _count_gpus() else "CPU"


def compile_model(model: keras.Model, options: TrainOptions, steps_per_epoch: int) -> None:
    """Give the model the optimiser, schedule and loss of a run with these options."""
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        decay_steps=max(1, (options.epochs - 1) * steps_per_epoch),
        warmup_target=options.peak_learning_rate,
        warmup_steps=steps_per_epoch,
        alpha=0.01,
    )
    # At the end of each epoch, Keras replaces the weights by their averages (Polyak and Juditsky, 1992). The next
    # epoch starts from the averages, as in Lookahead (Zhang et al., 2019).
    optimizer = keras.optimizers.AdamW(
        schedule,
        weight_decay=options.weight_decay,
        use_ema="averaging" in options.parts,
        ema_momentum=_AVERAGE_MOMENTUM,
    )
    # Do not decay biases and the scales and shifts of normalisations towards 0.
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    model.compile(
        optimizer=optimizer,
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=options.label_smoothing),
        metrics=["accuracy"],
        # On a CPU, XLA's convolutions take eight times as long as TensorFlow's own.
        jit_compile="auto" if _count_gpus() else False,
    )
    # Create the variables of the optimiser and of the metrics now: otherwise the first step would be traced twice.
    optimizer.build(model.trainable_variables)
    probabilities = tf.zeros((1, model.output_shape[-1]))
    model.compute_metrics(None, probabilities, probabilities)
    model.reset_metrics()


def _count_gpus() -> int:
    return len(tf.config.list_physical_devices("GPU"))
