"""Batches for training: shuffled, augmented as aerial scenes allow, one-hot labels."""

from __future__ import annotations

import tensorflow as tf

from model.imaging.decode import INPUT_SIZE
from model.offline.dataset import Pixels

_SMALLEST_CROP = 0.75
_LARGEST_LIGHT_SHIFT = 20.0


def training_batches(pixels: Pixels, classes: int, batch_size: int, seed: int) -> tf.data.Dataset:
    """Yield augmented float [b, 256, 256, 3] and one-hot [b, classes], reshuffled each epoch."""
    return (
        tf.data.Dataset.from_tensor_slices((pixels.images, pixels.labels))
        .shuffle(len(pixels.labels), seed=seed)
        .map(lambda image, label: (augment(image), tf.one_hot(label, classes)), num_parallel_calls=tf.data.AUTOTUNE)
        .batch(batch_size)
        .prefetch(tf.data.AUTOTUNE)
    )


def validation_batches(pixels: Pixels, classes: int, batch_size: int) -> tf.data.Dataset:
    """Yield the images as they are, in order."""
    return (
        tf.data.Dataset.from_tensor_slices((pixels.images, pixels.labels))
        .map(lambda image, label: (tf.cast(image, tf.float32), tf.one_hot(label, classes)))
        .batch(batch_size)
        .prefetch(tf.data.AUTOTUNE)
    )


def augment(image: tf.Tensor) -> tf.Tensor:
    """Flip, turn by quarters, zoom in, change the light and the colours' strength: from above, no direction is up."""
    image = tf.image.random_flip_left_right(tf.cast(image, tf.float32))
    image = tf.image.rot90(image, tf.random.uniform([], 0, 4, tf.int32))
    side = tf.cast(INPUT_SIZE[0] * tf.random.uniform([], _SMALLEST_CROP, 1.0), tf.int32)
    image = tf.image.resize(tf.image.random_crop(image, (side, side, 3)), INPUT_SIZE)
    image = tf.image.random_saturation(image, 0.7, 1.3)
    image = tf.image.random_contrast(image, 0.8, 1.25)
    image = tf.image.random_brightness(image, _LARGEST_LIGHT_SHIFT)
    return tf.clip_by_value(tf.ensure_shape(image, (*INPUT_SIZE, 3)), 0.0, 255.0)
