"""Train the layers above the stored features."""

from __future__ import annotations

import time
from pathlib import Path

import keras
import tensorflow as tf

from model.imaging.input_spec import InputSpec
from model.offline.retrain import Choice, RetrainOptions
from model.offline.retrain.budget import Budget
from model.offline.retrain.features import LAST_FROZEN, Features
from model.offline.train import TrainOptions
from model.offline.train.fit import compile_model
from model.offline.train.network import fuse
from model.offline.train.run_log import RunLog
from model.offline.train.statistics import estimate_statistics

_STATISTICS_BATCHES = 12


class TailTraining:
    """Trains copies of the upper layers of `network`, the start model, on stored features."""

    def __init__(self, network: keras.Model, features: Features, options: RetrainOptions, spec: InputSpec) -> None:
        self._features = features
        self._options = options
        self._spec = spec
        # It shares its layers with `network`.
        self._upper = keras.Model(network.get_layer(LAST_FROZEN).output, network.output)

    def measure_start(self) -> dict[str, float]:
        """Return the results of the start model on the validation images."""
        return self._features.validation.measure(self._upper)

    def run_trial(self, choice: Choice, epochs: range, *, load: Path | None, save: Path) -> dict[str, float]:
        """Train for `epochs`, from the start model or the weights in `load`; save the weights, return the results."""
        options = self.describe(choice, len(epochs))
        tail = self._make_tail(choice, options)
        if load is not None:
            tail.load_weights(load)
        start = time.monotonic()
        for epoch in epochs:
            results = self._train_epoch(tail, epoch, options)
        tail.save_weights(save)
        return {**results, "epoch_s": (time.monotonic() - start) / len(epochs)}

    def fit(self, choice: Choice, epochs: int, folder: Path, budget: Budget) -> RunLog:
        """Train for this many epochs, resuming in `folder`, and set the network to the weights of the best epoch."""
        folder.mkdir(exist_ok=True)
        log = RunLog(folder)
        options = self.describe(choice, epochs)
        tail = self._make_tail(choice, options)
        log.restore(tail)
        for epoch in range(len(log.history), epochs):
            metrics = self._train_epoch(tail, epoch, options)
            log.append({**metrics, "size": self._spec.width}, tail)
            log.save_state(tail)
            budget.save()
            print(
                f"Epoch {epoch + 1} of {epochs}: score {metrics['val_score']:.4f}, accuracy "
                f"{metrics['val_accuracy']:.4f}; {budget}.",
                flush=True,
            )
        tail.load_weights(log.best_weights_path)
        self._upper.set_weights(tail.get_weights())
        return log

    def describe(self, choice: Choice, epochs: int) -> TrainOptions:
        """Return the options of a training of this many epochs."""
        return choice.make_train_options(self._options, self._spec, epochs)

    def _make_tail(self, choice: Choice, options: TrainOptions) -> keras.Model:
        """Return a copy of the upper layers of the start model that is ready for training."""
        keras.utils.set_random_seed(options.seed)
        tail = keras.models.clone_model(self._upper, clone_function=fuse)
        tail.set_weights(self._upper.get_weights())
        tail.get_layer("dropout").rate = choice.dropout
        names = [layer.name for layer in tail.layers]
        for layer in tail.layers[: names.index(choice.trained_from)]:
            layer.trainable = False
        images = len(self._features.load_view(0)[1])
        compile_model(tail, options, -(-images // options.batch_size))
        return tail

    def _train_epoch(self, tail: keras.Model, epoch: int, options: TrainOptions) -> dict[str, float]:
        features, labels = self._features.load_view(epoch)
        results = tail.fit(features, labels, batch_size=options.batch_size, verbose=0)
        batches = tf.data.Dataset.from_tensor_slices((features, labels)).shuffle(len(labels), options.seed)
        estimate_statistics(tail, batches.batch(options.batch_size).take(_STATISTICS_BATCHES))
        training = {name: float(values[-1]) for name, values in results.history.items()}
        return {**training, **self._features.validation.measure(tail)}
