"""The description of a model's input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from model.imaging.decode import decode_image, measure_image
from model.imaging.input_spec import DEFAULT_INPUT, InputSpec
from tests.model.serving.gated import png


def test_the_ledger_names_the_preprocessing_of_the_shipped_model() -> None:
    """The shipped model's preprocessing is recorded as "4", the version of the decoder."""
    assert InputSpec().preprocessing == DEFAULT_INPUT.preprocessing == "4"


def test_other_inputs_have_other_names() -> None:
    """Each size and filter has its own name in the ledger, which begins with the decoder's version."""
    specs = [InputSpec(192, 160), InputSpec(160, 192), InputSpec(resize_filter="box"), DEFAULT_INPUT]
    names = [spec.preprocessing for spec in specs]
    assert names[0] == "4:192x160:bicubic"
    assert len(set(names)) == len(specs)


@pytest.mark.parametrize(
    "members",
    [
        {"width": 0},
        {"height": -1},
        {"width": 192.0},
        {"height": True},
        {"resize_filter": "sinc"},
        {"ground_resolution_m": 0},
        {"dtype": "float16"},
    ],
)
def test_an_impossible_input_is_an_error(members: dict[str, Any]) -> None:
    """Sizes are positive integers, a resolution is positive, and filter and type are known."""
    with pytest.raises(ValueError, match="is not a"):
        InputSpec(**members)


@pytest.mark.parametrize("resize_filter", ["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"])
def test_images_are_scaled_with_the_filter_of_the_input(resize_filter: str) -> None:
    """Decoding gives the same pixels as Pillow's resize with that filter."""
    spec = InputSpec(24, 16, resize_filter)
    data = png(200)
    expected = Image.new("RGB", (40, 30), (200, 100, 0)).resize((24, 16), spec.resampling)
    assert np.array_equal(decode_image(data, spec).pixels, np.asarray(expected))


@pytest.mark.parametrize(("dtype", "bytes_per_pixel"), [("uint8", 3), ("float32", 15)])
def test_a_larger_input_takes_more_memory(dtype: str, bytes_per_pixel: int) -> None:
    """The estimate includes the pixels, and their copy for a graph that takes float32."""
    data = png(1)
    small, large = (measure_image(data, InputSpec(side, side, dtype=dtype)).bytes for side in (256, 1024))
    assert large - small > bytes_per_pixel * (1024 * 1024 - 256 * 256)


def test_a_graph_that_takes_the_pixels_needs_no_memory_for_a_copy() -> None:
    """Without the float32 copy, the estimate is lower by its size, and the name in the ledger is the same."""
    data = png(1)
    direct, copied = (InputSpec(dtype=dtype) for dtype in ("uint8", "float32"))
    assert measure_image(data, copied).bytes - measure_image(data, direct).bytes == 256 * 256 * 3 * 4
    assert direct.preprocessing == copied.preprocessing


def test_a_large_jpeg_is_never_reduced_below_the_input() -> None:
    """The side to which a JPEG may be reduced grows with the model's input."""
    assert DEFAULT_INPUT.reduced_side == 1024
    assert InputSpec(512, 300).reduced_side == 2048


def test_a_ground_resolution_changes_no_pixel() -> None:
    """Inputs that differ in their ground resolution alone are equal, and have the same name in the ledger."""
    assert InputSpec(ground_resolution_m=0.3) == DEFAULT_INPUT
    assert InputSpec(ground_resolution_m=0.3).preprocessing == DEFAULT_INPUT.preprocessing
