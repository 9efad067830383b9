"""Estimate the means and variances that batch normalisations use for predictions."""

from __future__ import annotations

import keras
import tensorflow as tf

from model.offline.train.network import FusedBatchNormalization


def estimate_statistics(model: keras.Model, batches: tf.data.Dataset) -> None:
    """Set all means and variances to their averages over `batches` of images and labels.

    The statistics collected in training belong to earlier weights, so averaged weights need new ones.
    """

    @tf.function  # type: ignore[untyped-decorator]
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
