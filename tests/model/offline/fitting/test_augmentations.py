from __future__ import annotations

import numpy as np

from model.offline.fitting.augmentations import change_mostly, change_randomly


def make_images(count: int) -> list[np.ndarray]:
    """Make images of 40x56 pixels whose colours change slowly."""
    y, x = np.mgrid[0:40, 0:56]
    return [np.stack([x * 3 + index, y * 5, x + y], axis=-1).astype(np.uint8) for index in range(count)]


def test_same_image_and_seed_give_the_same_change() -> None:
    """A change depends only on the image and the seed, so that threads may apply it in any order."""
    first, second = make_images(2)
    assert np.array_equal(change_randomly(first, 1), change_randomly(first, 1))
    assert not np.array_equal(change_randomly(first, 1), change_randomly(first, 2))
    assert not np.array_equal(change_randomly(first, 1), change_randomly(second, 1))


def test_changes_keep_size_and_type() -> None:
    """Every change returns uint8 pixels of the same size."""
    for seed, image in enumerate(make_images(40)):
        changed = change_randomly(image, seed)
        assert changed.shape == image.shape
        assert changed.dtype == np.uint8


def test_a_quarter_is_left_unchanged() -> None:
    """`change_mostly` leaves about every fourth image as it is."""
    images = make_images(200)
    kept = sum(np.array_equal(change_mostly(image, 3), image) for image in images)
    assert 25 <= kept <= 75
