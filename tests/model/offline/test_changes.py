from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from model.offline.changes import ALL_CHANGES, SIX_CHANGES, Pixels, coarsen


@pytest.fixture
def scene() -> Pixels:
    """A smooth colour gradient of 256x256 pixels, from 40 to 215."""
    small = np.random.default_rng(5).integers(40, 216, (4, 4, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((256, 256), Image.Resampling.BILINEAR))


def paint(*colour: int) -> Pixels:
    """A uniform image."""
    return np.tile(np.array(colour, np.uint8), (16, 16, 1))


@pytest.mark.parametrize(
    ("change", "colour", "expected"),
    [
        ("brightness x1.4", (100, 33, 200), (140, 46, 255)),
        ("brightness x0.6", (100, 33, 255), (60, 20, 153)),
        ("grey", (200, 100, 50), (124, 124, 124)),
        ("grey", (255, 255, 255), (255, 255, 255)),
        ("warm cast", (100, 77, 101), (115, 77, 86)),
        ("warm cast", (230, 255, 255), (255, 255, 217)),
    ],
    ids=["lighter", "darker", "grey", "white stays white", "warmer", "warmer and light"],
)
def test_light_and_colour_change_by_their_factors(
    change: str, colour: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    """Values are multiplied, rounded to the nearest integer and limited to 255; grey is the luminance of BT.601."""
    np.testing.assert_array_equal(ALL_CHANGES[change](paint(*colour)), paint(*expected))


def test_noise_is_gaussian_with_a_deviation_of_10() -> None:
    """On mid-grey, where nothing is cut off, the difference has mean 0 and standard deviation 10 in each channel."""
    difference = SIX_CHANGES["Gaussian noise, sd 10"](np.full((256, 256, 3), 128, np.uint8)).astype(float) - 128
    np.testing.assert_allclose(difference.mean(axis=(0, 1)), 0, atol=0.15)
    np.testing.assert_allclose(difference.std(axis=(0, 1)), 10, atol=0.15)


def test_noise_of_an_image_is_the_same_in_every_run(scene: Pixels) -> None:
    """The same image gets the same noise, and another image gets different noise."""
    add_noise = SIX_CHANGES["Gaussian noise, sd 10"]
    np.testing.assert_array_equal(add_noise(scene), add_noise(scene.copy()))
    flipped = scene[::-1]
    assert (add_noise(scene).astype(int) - scene != add_noise(flipped).astype(int) - flipped).mean() > 0.9


@pytest.mark.parametrize(("change", "side"), [("ground resolution x1.5", 171), ("ground resolution x2", 128)])
def test_coarser_scene_is_centred_between_mirrored_borders(scene: Pixels, change: str, side: int) -> None:
    """256 pixels become 171 or 128 in the centre; each border continues the scene as its mirror image."""
    coarse = ALL_CHANGES[change](scene)
    first = (256 - side) // 2
    small = np.asarray(Image.fromarray(scene).resize((side, side), Image.Resampling.BICUBIC))
    assert coarse.shape == scene.shape
    np.testing.assert_array_equal(coarse[first : first + side, first : first + side], small)
    np.testing.assert_array_equal(coarse[first - 1], coarse[first + 1])
    np.testing.assert_array_equal(coarse[:, first + side], coarse[:, first + side - 2])


def test_coarser_scenes_of_other_models_keep_their_size() -> None:
    """An input that is not square or has an odd side keeps its size."""
    assert coarsen(np.zeros((96, 129, 3), np.uint8), 1.5).shape == (96, 129, 3)


@pytest.mark.parametrize("change", ALL_CHANGES.values(), ids=ALL_CHANGES)
def test_changes_leave_the_original_image_unchanged(scene: Pixels, change: object) -> None:
    """A change does not modify its input, and returns 8-bit values."""
    assert callable(change)
    before = scene.copy()
    assert change(scene).dtype == np.uint8
    np.testing.assert_array_equal(scene, before)
