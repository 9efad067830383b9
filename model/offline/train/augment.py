"""Change an aerial image randomly: position, scale, light, colour, noise, blur and compression.

All random numbers of an image come from one seed, so that a run can be repeated and resumed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection

import tensorflow as tf

_CLEAN_SHARE = 0.25
_ZOOM = (0.45, 2.0)  # below 1, the scene shrinks and gets mirrored borders
_LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601
_BLUR_RADIUS = 3  # pixels


class _Draws:
    """The random numbers of one image. Each method call uses one of them."""

    def __init__(self, seed: tf.Tensor) -> None:
        self._numbers = tf.random.stateless_uniform([32], seed)
        self._used = 0

    def uniform(self, low: float, high: float) -> tf.Tensor:
        self._used += 1
        return low + (high - low) * self._numbers[self._used - 1]

    def log_uniform(self, low: float, high: float) -> tf.Tensor:
        return tf.exp(self.uniform(math.log(low), math.log(high)))

    def chance(self, probability: float) -> tf.Tensor:
        return self.uniform(0.0, 1.0) < probability


def augment(image: tf.Tensor, size: int, seed: tf.Tensor, always: tf.Tensor, parts: Collection[str]) -> tf.Tensor:
    """Turn a square uint8 [n, n, 3] into a changed float32 [size, size, 3] in 0..255.

    `seed` is int32 [2]; `parts` names the groups of changes to apply: light, colour, scale and noise. One image in four
    is only turned, flipped and scaled to `size`, unless `always` is true.
    """
    draws = _Draws(seed)
    image = _turn(tf.cast(image, tf.float32), draws)
    clean = draws.chance(_CLEAN_SHARE) & ~always
    image = tf.cond(
        clean,
        lambda: _resize(image, size),
        lambda: _change_camera(_change_scale(image, size, draws, parts), draws, parts, seed),
    )
    return tf.clip_by_value(tf.ensure_shape(image, (size, size, 3)), 0.0, 255.0)


def _turn(image: tf.Tensor, draws: _Draws) -> tf.Tensor:
    """Apply one of the eight symmetries of a square, because an aerial image has no "up"."""
    image = tf.image.rot90(image, tf.cast(draws.uniform(0, 4), tf.int32))
    return tf.cond(draws.chance(0.5), lambda: tf.image.flip_left_right(image), lambda: image)


def _resize(image: tf.Tensor, side: tf.Tensor | int) -> tf.Tensor:
    return tf.image.resize(image, (side, side), antialias=True)


def _change_scale(image: tf.Tensor, size: int, draws: _Draws, parts: Collection[str]) -> tf.Tensor:
    """Crop a part, down to half of each side, or shrink the image and mirror it at its borders."""
    zoom = draws.log_uniform(*_ZOOM) if "scale" in parts else draws.log_uniform(1.0, 1.3)
    side = tf.cast(tf.shape(image)[0], tf.float32)
    cropped = tf.cast(tf.round(side / tf.maximum(zoom, 1.0)), tf.int32)
    free = tf.cast(tf.shape(image)[0] - cropped, tf.float32)
    top, left = (tf.cast(draws.uniform(0, 1) * free, tf.int32) for _ in range(2))
    image = image[top : top + cropped, left : left + cropped]
    inner = tf.cast(tf.round(size * tf.minimum(zoom, 1.0)), tf.int32)
    return _mirror_borders(_resize(image, inner), size, inner, draws)


def _mirror_borders(image: tf.Tensor, size: int, inner: tf.Tensor, draws: _Draws) -> tf.Tensor:
    border = size - inner
    # A mirrored border cannot be wider than the image.
    low, high = tf.maximum(border - inner, 0), tf.minimum(border, inner)
    before = [low + tf.cast(draws.uniform(0, 1) * tf.cast(high - low + 1, tf.float32), tf.int32) for _ in range(2)]
    before = [tf.minimum(value, high) for value in before]
    return tf.pad(image, [[before[0], border - before[0]], [before[1], border - before[1]], [0, 0]], "SYMMETRIC")


def _change_camera(image: tf.Tensor, draws: _Draws, parts: Collection[str], seed: tf.Tensor) -> tf.Tensor:
    if "light" in parts:
        image = _change_light(image, draws)
    if "colour" in parts:
        image = _change_colour(image, draws)
    if "noise" in parts:
        image = _degrade(image, draws, seed)
    return image


def _change_light(image: tf.Tensor, draws: _Draws) -> tf.Tensor:
    """Change exposure, gamma and contrast."""
    image = _maybe(draws.chance(0.7), _multiply, image, draws.log_uniform(0.5, 1.8))
    image = tf.clip_by_value(image, 0.0, 255.0)
    image = _maybe(draws.chance(0.4), _apply_gamma, image, draws.log_uniform(0.7, 1.45))
    return _maybe(draws.chance(0.4), _change_contrast, image, draws.uniform(0.6, 1.4))


def _change_colour(image: tf.Tensor, draws: _Draws) -> tf.Tensor:
    """Change white balance and saturation, down to grey."""
    gains = tf.stack([draws.uniform(0.8, 1.2) for _ in range(3)])
    image = _maybe(draws.chance(0.5), _multiply, image, gains)
    saturation = tf.where(draws.chance(0.2), 0.0, draws.uniform(0.0, 1.7))
    return _maybe(draws.chance(0.5), _change_saturation, image, saturation)


def _degrade(image: tf.Tensor, draws: _Draws, seed: tf.Tensor) -> tf.Tensor:
    """Add blur of the optics, noise of the sensor, and JPEG compression."""
    noise = tf.random.stateless_normal(tf.shape(image), seed)
    image = _maybe(draws.chance(0.25), _blur, image, draws.uniform(0.4, 1.5))
    image = _maybe(draws.chance(0.4), tf.add, image, noise * draws.uniform(0.0, 20.0))
    return _maybe(draws.chance(0.35), _compress, image, draws.uniform(15.0, 71.0))


def _maybe(
    chosen: tf.Tensor, change: Callable[[tf.Tensor, tf.Tensor], tf.Tensor], image: tf.Tensor, strength: tf.Tensor
) -> tf.Tensor:
    return tf.cond(chosen, lambda: change(image, strength), lambda: image)


def _multiply(image: tf.Tensor, gain: tf.Tensor) -> tf.Tensor:
    return image * gain


def _apply_gamma(image: tf.Tensor, gamma: tf.Tensor) -> tf.Tensor:
    return 255 * tf.pow(image / 255, gamma)


def _change_contrast(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    mean = tf.reduce_mean(image)
    return mean + (image - mean) * factor


def _change_saturation(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    grey = tf.reduce_sum(image * tf.constant(_LUMINANCE), axis=-1, keepdims=True)
    return grey + (image - grey) * factor


def _blur(image: tf.Tensor, deviation: tf.Tensor) -> tf.Tensor:
    offsets = tf.range(-_BLUR_RADIUS, _BLUR_RADIUS + 1, dtype=tf.float32)
    line = tf.exp(-tf.square(offsets / deviation) / 2)
    line = tf.reshape(line / tf.reduce_sum(line), (-1, 1, 1, 1)) * tf.ones((1, 1, 3, 1))
    border = [[_BLUR_RADIUS, _BLUR_RADIUS], [_BLUR_RADIUS, _BLUR_RADIUS], [0, 0]]
    image = tf.pad(image, border, "SYMMETRIC")[tf.newaxis]
    for kernel in (line, tf.transpose(line, (1, 0, 2, 3))):
        image = tf.nn.depthwise_conv2d(image, kernel, (1, 1, 1, 1), "VALID")
    return image[0]


def _compress(image: tf.Tensor, quality: tf.Tensor) -> tf.Tensor:
    levels = tf.cast(tf.clip_by_value(tf.round(image), 0.0, 255.0), tf.uint8)
    return tf.cast(tf.image.adjust_jpeg_quality(levels, tf.cast(quality, tf.int32)), tf.float32)
