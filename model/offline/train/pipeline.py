"""Batches for training, with augmentations that suit aerial images, and for validation; labels are one-hot."""

from __future__ import annotations

import tensorflow as tf

from model.offline.dataset import LabelledImages

_MIN_CROP = 0.75
_MAX_BRIGHTNESS_CHANGE = 20.0


def make_training_batches(images: LabelledImages, classes: int, batch_size: int, seed: int) -> tf.data.Dataset:
    """Yield augmented images, float [b, height, width, 3], and labels, [b, classes]; reshuffled in each epoch."""
    size = images.pixels.shape[1]
    return (
        tf.data.Dataset.from_tensor_slices((images.pixels, images.labels))
        .shuffle(len(images.labels), seed=seed)
        .map(
            lambda image, label: (augment(image, size), tf.one_hot(label, classes)),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        .batch(batch_size)
        .prefetch(tf.data.AUTOTUNE)
    )


def make_validation_batches(images: LabelledImages, classes: int, batch_size: int) -> tf.data.Dataset:
    """Yield the images unchanged and in order, with labels; shapes as in `make_training_batches`."""
    return (
        tf.data.Dataset.from_tensor_slices((images.pixels, images.labels))
        .map(lambda image, label: (tf.cast(image, tf.float32), tf.one_hot(label, classes)))
        .batch(batch_size)
        .prefetch(tf.data.AUTOTUNE)
    )


def augment(image: tf.Tensor, size: int) -> tf.Tensor:
    """Randomly flip, rotate by quarter turns, crop, and change the light and colours of a square image.

    An aerial image has no "up". `size` is the side in pixels, before and after.
    """
    image = tf.image.random_flip_left_right(tf.cast(image, tf.float32))
    image = tf.image.rot90(image, tf.random.uniform([], 0, 4, tf.int32))
    side = tf.cast(size * tf.random.uniform([], _MIN_CROP, 1.0), tf.int32)
    image = tf.image.resize(tf.image.random_crop(image, (side, side, 3)), (size, size))
    image = tf.image.random_saturation(image, 0.7, 1.3)
    image = tf.image.random_contrast(image, 0.8, 1.25)
    image = tf.image.random_brightness(image, _MAX_BRIGHTNESS_CHANGE)
    return tf.clip_by_value(tf.ensure_shape(image, (size, size, 3)), 0.0, 255.0)
