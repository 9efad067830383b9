from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from model.offline.dataset import LabelledImages
from model.offline.train import PARTS
from model.offline.train.augment import augment
from model.offline.train.batches import TrainingBatches

pytestmark = pytest.mark.keras

SIZE = 32
IMAGE = np.random.default_rng(3).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)


def change(
    count: int, parts: tuple[str, ...] = PARTS, *, always: bool = True, image: NDArray[np.uint8] = IMAGE
) -> NDArray[np.float32]:
    """Return `image` changed with each seed below `count`, float32 [count, SIZE, SIZE, 3]."""

    def apply(seed: tf.Tensor) -> tf.Tensor:
        return augment(tf.constant(image), SIZE, tf.stack([tf.cast(seed, tf.int32), 1]), tf.constant(always), parts)

    return np.stack(list(tf.data.Dataset.range(count).map(apply).as_numpy_iterator()))


def is_turned(changed: NDArray[np.float32]) -> bool:
    """Whether `changed` has the pixels of IMAGE, turned or flipped."""
    return any(np.array_equal(changed, turned) for turned in symmetries(IMAGE))


def symmetries(image: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    return [np.rot90(flipped, quarter) for flipped in (image, image[:, ::-1]) for quarter in range(4)]


def make_batches(extra: int = 0) -> TrainingBatches:
    """Make batches of two classes of 32 images, black and white, and `extra` grey images of the second class."""
    pixels = np.zeros((64, SIZE, SIZE, 3), np.uint8)
    pixels[32:] = 255
    images = LabelledImages(pixels, np.repeat([0, 1], 32))
    more = LabelledImages(np.full((extra, SIZE, SIZE, 3), 128, np.uint8), np.ones(extra, np.int64)) if extra else None
    return TrainingBatches(images, more, classes=2, batch_size=4, seed=7, parts=PARTS)


def test_one_image_in_four_is_only_turned_and_flipped() -> None:
    """A quarter of the images keep their pixels, in one of the eight symmetries of a square."""
    assert 10 <= sum(is_turned(changed) for changed in change(80, always=False)) <= 32


def test_images_of_another_camera_are_never_left_unchanged() -> None:
    """With `always`, no image keeps its pixels."""
    assert not any(is_turned(changed) for changed in change(40))


def test_changes_depend_only_on_the_seed() -> None:
    """The same seed gives the same pixels, and another seed gives different ones."""
    first, again = change(2), change(2)
    assert np.array_equal(first, again)
    assert not np.array_equal(first[0], first[1])


def test_changed_images_stay_in_range() -> None:
    """Changed pixel values lie between 0 and 255."""
    changed = change(40)
    assert changed.shape == (40, SIZE, SIZE, 3)
    assert changed.min() >= 0
    assert changed.max() <= 255


def test_light_changes_brightness_only_when_it_is_part_of_the_recipe() -> None:
    """A change of scale keeps the brightness of a grey image, and a change of light does not."""
    grey = np.full((SIZE, SIZE, 3), 100, np.uint8)
    assert change(20, ("scale",), image=grey) == pytest.approx(100, abs=0.01)
    means = change(40, ("light",), image=grey).mean(axis=(1, 2, 3))
    assert means.min() < 75
    assert means.max() > 135


def test_epochs_differ_and_can_be_repeated() -> None:
    """The batches of an epoch are the same each time, and differ from those of another epoch."""
    first, again, other = (
        np.concatenate([images for images, _ in make_batches().of_epoch(epoch, SIZE).as_numpy_iterator()])
        for epoch in (0, 0, 1)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_some_batches_mix_images_and_their_labels() -> None:
    """CutMix and mixup give labels of two classes that add up to 1; without mixing, each image has one class."""
    mixed, plain = (
        np.concatenate([labels for _, labels in make_batches().of_epoch(0, SIZE, mixed=mixing).as_numpy_iterator()])
        for mixing in (True, False)
    )
    assert mixed.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert 0.05 < (mixed.max(axis=1) < 0.999).mean() < 0.6
    assert set(np.unique(plain)) == {0, 1}


def test_batches_have_any_size_and_contain_the_extra_images() -> None:
    """Images have the size of the stage, and each epoch includes the images of another camera."""
    batches = make_batches(extra=4)
    assert batches.steps == 17
    images, labels = next(iter(batches.of_epoch(0, 48)))
    assert images.shape == (4, 48, 48, 3)
    assert labels.shape == (4, 2)
