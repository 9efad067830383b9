from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.errors import ExportRefused
from model.imaging.input_spec import DEFAULT_INPUT, InputSpec
from model.offline.export.check import check_softmax, collect_images, compare, predict_with_onnx
from model.offline.export.patterns import generate_images

ROWS = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3]], np.float32)


def test_generated_images_are_reproducible_and_all_different() -> None:
    """The generated images are a fixed set without duplicates, so that all exports are compared on the same images."""
    first, second = generate_images(64, (256, 256)), generate_images(64, (256, 256))
    assert np.array_equal(first, second)
    assert len({image.tobytes() for image in first}) == 64


def test_real_images_are_found_at_any_depth_and_completed_with_generated_ones(tmp_path: Path) -> None:
    """Images come from all subfolders, other files are ignored, and generated images are added up to a total of 64."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    Image.new("RGB", (30, 20), (10, 20, 30)).save(tmp_path / "a" / "b" / "one.png")
    Image.new("RGB", (30, 20), (90, 80, 70)).save(tmp_path / "two.tif")
    (tmp_path / "two.tfw").write_text("0.3\n")
    for name in ("cut.png", "large.png"):
        (tmp_path / name).write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    os.truncate(tmp_path / "large.png", 1 << 40)  # larger than images may be
    images = collect_images(tmp_path, DEFAULT_INPUT)
    assert images.real == 2
    assert images.pixels.shape == (64, 256, 256, 3)
    assert images.pixels[0, 0, 0].tolist() == [10, 20, 30]


def test_check_images_have_the_size_of_the_models_input(tmp_path: Path) -> None:
    """Decoded and generated images have the height and width of the model's input."""
    Image.new("RGB", (30, 20), (10, 20, 30)).save(tmp_path / "one.png")
    assert collect_images(tmp_path, InputSpec(width=48, height=32)).pixels.shape == (64, 32, 48, 3)


def test_large_folder_is_sampled_evenly(tmp_path: Path) -> None:
    """From more than 256 images, a sample is taken that is evenly spread from the first file to the last."""
    for index in range(300):
        Image.new("L", (1, 1), index % 256).save(tmp_path / f"{index:03}.png")
    images = collect_images(tmp_path, DEFAULT_INPUT)
    assert images.real == len(images.pixels) == 150
    assert images.pixels[-1, 0, 0, 0] == 298 % 256


def test_folder_without_images_is_rejected(tmp_path: Path) -> None:
    """A folder without any image raises an error."""
    with pytest.raises(ExportRefused, match=r"No image in .* can be decoded"):
        collect_images(tmp_path, DEFAULT_INPUT)


def test_close_probabilities_agree_and_the_largest_difference_is_recorded() -> None:
    """Probabilities within 1e-4 are accepted, and the result contains the largest difference."""
    agreement = compare(ROWS, ROWS + np.float32(5e-5), real=1)
    assert agreement.images == 2
    assert agreement.real_images == 1
    assert agreement.largest_difference == pytest.approx(5e-5, rel=1e-2)


@pytest.mark.parametrize(
    "actual",
    [
        pytest.param(ROWS + np.float32(2e-4), id="too far"),
        pytest.param(ROWS * np.float32(np.nan), id="not a number"),
        pytest.param(ROWS[:, :2], id="too few classes"),
        pytest.param(ROWS[:1], id="too few rows"),
    ],
)
def test_different_probabilities_are_rejected(actual: np.ndarray) -> None:
    """Distant, undefined and missing probabilities raise ExportRefused."""
    with pytest.raises(ExportRefused):
        compare(ROWS, actual, real=0)


def test_different_top_class_is_rejected_however_close() -> None:
    """A changed top class raises ExportRefused, even when no probability differs by 1e-4."""
    near = np.array([[0.50001, 0.49999]], np.float32)
    with pytest.raises(ExportRefused, match="top class differs on 1 of 1"):
        compare(near, near[:, ::-1], real=0)


@pytest.mark.parametrize("outputs", [[[0.9, 0.8]], [[1.5, -0.5]], [[float("nan"), 1.0]]])
def test_outputs_that_are_not_a_softmax_are_rejected(outputs: list[list[float]]) -> None:
    """Outputs of a sigmoid, logits and NaN are rejected, because they are not a distribution over the classes."""
    with pytest.raises(ExportRefused, match="softmax"):
        check_softmax(np.array(outputs, np.float32))


def test_graph_that_onnx_runtime_cannot_open_is_rejected() -> None:
    """A broken graph raises ExportRefused with the reason."""
    with pytest.raises(ExportRefused, match="ONNX Runtime cannot run the graph"):
        predict_with_onnx(b"not a graph", np.zeros((1, 256, 256, 3), np.uint8))
