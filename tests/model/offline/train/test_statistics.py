from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from model.offline.train.network import FusedBatchNormalization
from model.offline.train.statistics import estimate_statistics
from tests.model.offline.conftest import ignores_array_copies

pytestmark = [pytest.mark.keras, ignores_array_copies]
GENERATOR = np.random.default_rng(11)
IMAGES = GENERATOR.normal(3, 2, (24, 4, 4, 5)).astype(np.float32)


def test_fused_normalisation_computes_what_keras_computes() -> None:
    """Outputs and moving statistics equal those of Keras' layer, in training and in inference."""
    fused, plain = FusedBatchNormalization(), keras.layers.BatchNormalization()
    for training in (True, True, False):
        actual, expected = (np.asarray(layer(IMAGES, training=training)) for layer in (fused, plain))
        assert actual == pytest.approx(expected, abs=2e-3)
    for actual, expected in zip(fused.get_weights(), plain.get_weights(), strict=True):
        # The fused kernel's variance has the divisor n - 1 where Keras' has n.
        assert actual == pytest.approx(expected, rel=0.01)


def test_statistics_are_means_over_the_batches() -> None:
    """Each mean and variance becomes the average over all batches, each with the same weight."""
    layer = FusedBatchNormalization()
    inputs = keras.Input((4, 4, 5))
    model = keras.Model(inputs, layer(inputs))
    batches = tf.data.Dataset.from_tensor_slices((IMAGES, np.zeros(24))).batch(8)
    estimate_statistics(model, batches)
    parts = [IMAGES[start : start + 8].reshape(-1, 5) for start in (0, 8, 16)]
    assert np.asarray(layer.moving_mean) == pytest.approx(np.mean([part.mean(axis=0) for part in parts], 0), abs=1e-4)
    variance = np.mean([part.var(axis=0, ddof=1) for part in parts], axis=0)
    assert np.asarray(layer.moving_variance) == pytest.approx(variance, rel=1e-3)


def test_statistics_follow_training_at_their_usual_pace_afterwards() -> None:
    """After an estimate, a training step moves the statistics by one part in a hundred, as Keras does."""
    layer = FusedBatchNormalization()
    inputs = keras.Input((4, 4, 5))
    model = keras.Model(inputs, layer(inputs))
    estimate_statistics(model, tf.data.Dataset.from_tensors((IMAGES, np.zeros(24))))
    before = np.asarray(layer.moving_mean)
    model(IMAGES + 100, training=True)
    assert np.asarray(layer.moving_mean) - before == pytest.approx(1, abs=0.01)
