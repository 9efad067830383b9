"""Batches of augmented images for training; labels are one-hot."""

from __future__ import annotations

from collections.abc import Collection

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from model.offline.dataset import LabelledImages
from model.offline.train.augment import augment

_MIXED_SHARE = 0.4  # of the batches: half of them with CutMix, half with mixup
_MIXUP_ALPHA = 0.2


class TrainingBatches:
    """Batches of the training images and of `extra` images, which are always augmented.

    The batches of an epoch depend only on the epoch's number and on `seed`. `parts` are those of
    `model.offline.train.PARTS` that the run uses.
    """

    def __init__(
        self,
        images: LabelledImages,
        extra: LabelledImages | None,
        *,
        classes: int,
        batch_size: int,
        seed: int,
        parts: Collection[str],
    ) -> None:
        self._count = len(images.labels) + (0 if extra is None else len(extra.labels))
        # Convert the arrays once: each data set that captures an array would copy it.
        self._pixels, self._labels, self._always = (tf.constant(array) for array in _join(images, extra))
        self._classes = classes
        self._batch_size = batch_size
        self._seed = seed
        self._parts = parts

    @property
    def steps(self) -> int:
        """The number of full batches in an epoch; remaining images are left out."""
        return max(1, self._count // self._batch_size)

    def of_epoch(self, epoch: int, size: int, *, mixed: bool = True) -> tf.data.Dataset:
        """Yield images, float32 [b, size, size, 3] in 0..255, and labels, float32 [b, classes].

        Four batches in ten mix pairs of images (CutMix, Yun et al., 2019; mixup, Zhang et al., 2018) unless `mixed` is
        false.
        """
        order = np.random.default_rng((self._seed, epoch)).permutation(self._count)
        seeds = np.random.default_rng((self._seed, epoch, 1)).integers(2**31, size=(len(order), 2), dtype=np.int32)
        indices = tf.data.Dataset.from_tensor_slices((order, seeds))

        def load(index: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            image = augment(self._pixels[index], size, seed, self._always[index], self._parts)
            return image, tf.one_hot(self._labels[index], self._classes)

        batches = indices.map(load, num_parallel_calls=tf.data.AUTOTUNE).batch(self._batch_size).take(self.steps)
        if mixed and "mixing" in self._parts:
            batches = batches.enumerate().map(_Mixer(self._seed + epoch, self._classes))
        return batches.prefetch(2)


class _Mixer:
    def __init__(self, seed: int, classes: int) -> None:
        self._seed = seed
        self._cut = keras.layers.CutMix(seed=seed)
        self._blend = keras.layers.MixUp(alpha=_MIXUP_ALPHA, seed=seed)

    def __call__(self, step: tf.Tensor, batch: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        images, labels = batch
        draw = tf.random.stateless_uniform([], tf.stack([tf.cast(step, tf.int32), self._seed]))
        choices = (
            lambda: (images, labels),
            lambda: _apply(self._cut, images, labels),
            lambda: _apply(self._blend, images, labels),
        )
        chosen = tf.cast(draw < _MIXED_SHARE, tf.int32) + tf.cast(draw < _MIXED_SHARE / 2, tf.int32)
        mixed: tuple[tf.Tensor, tf.Tensor] = tf.switch_case(chosen, choices)
        return mixed


def _apply(layer: keras.layers.Layer, images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    mixed = layer({"images": images, "labels": labels}, training=True)
    return tf.ensure_shape(mixed["images"], images.shape), tf.ensure_shape(mixed["labels"], labels.shape)


def _join(
    images: LabelledImages, extra: LabelledImages | None
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.bool_]]:
    """Return pixels, labels, and whether each image must always be augmented."""
    if extra is None:
        return images.pixels, images.labels, np.zeros(len(images.labels), bool)
    always = np.repeat([False, True], [len(images.labels), len(extra.labels)])
    return (
        np.concatenate([images.pixels, extra.pixels]),
        np.concatenate([images.labels, extra.labels]),
        always,
    )
