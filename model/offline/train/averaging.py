"""Averaged weights (Polyak and Juditsky, 1992): usually more accurate than those of the last step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import keras
import tensorflow as tf

from model.offline.train.network import FusedBatchNormalization


@contextmanager
def averaged_weights(model: keras.Model, batches: tf.data.Dataset) -> Iterator[None]:
    """Give `model` the averages that its optimiser keeps, and statistics of the activations that fit them.

    `batches` yield images and labels; they must cover at least one epoch in the long run, since statistics of the
    trained weights differ from those of the averages. The block's end restores weights and statistics.
    """
    trained = model.get_weights()
    model.optimizer.finalize_variable_values(model.trainable_variables)
    _estimate_statistics(model, batches)
    try:
        yield
    finally:
        model.set_weights(trained)


def _estimate_statistics(model: keras.Model, batches: tf.data.Dataset) -> None:
    """Set means and variances of all batch normalisations to their averages over `batches`."""

    @tf.function
    def run(images: tf.Tensor) -> None:
        model(images, training=True)

    momentum = FusedBatchNormalization.statistics_momentum
    usual = momentum.numpy()
    try:
        for number, (images, _) in enumerate(batches):
            momentum.assign(number / (number + 1))
            run(images)
    finally:
        momentum.assign(usual)
