from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.errors import DatasetError
from model.offline.dataset import (
    evaluation_folder,
    held_out_folder,
    list_images,
    read_image,
    read_pixels,
    stratified_split,
    training_folder,
)


def fill(folder: Path, suffix: str = ".jpg", **counts: int) -> Path:
    """Write `counts[name]` images of one colour into each folder/name/."""
    for level, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (8, 8), (40 * level, number, 0)).save(folder / name / f"{name}{number:02}{suffix}")
    return folder


def test_a_folder_with_train_and_test_keeps_them_apart(tmp_path: Path) -> None:
    """DIR/train is trained on, DIR/test is evaluated on and held out."""
    fill(tmp_path / "train", beach=2, forest=2)
    fill(tmp_path / "test", beach=1, forest=1)
    assert training_folder(tmp_path) == tmp_path / "train"
    assert evaluation_folder(tmp_path) == held_out_folder(tmp_path) == tmp_path / "test"


def test_the_original_layout_of_the_data_set_is_read(tmp_path: Path) -> None:
    """UCMerced_LandUse/Images/<class>/*.tif, as it is downloaded, serves training and evaluation."""
    images = fill(tmp_path / "UCMerced_LandUse" / "Images", ".tif", agricultural=3, airplane=2)
    for data in (tmp_path, tmp_path / "UCMerced_LandUse", images):
        assert training_folder(data) == evaluation_folder(data) == images
        assert held_out_folder(data) is None
    files = list_images(images)
    assert files.classes == ("agricultural", "airplane")
    assert read_pixels(files).images.shape == (5, 256, 256, 3)


def test_bare_class_folders_are_read(tmp_path: Path) -> None:
    """DIR/<class>/ is enough."""
    fill(tmp_path, river=1, runway=1)
    assert training_folder(tmp_path) == evaluation_folder(tmp_path) == tmp_path


def test_a_folder_without_classes_says_what_was_expected(tmp_path: Path) -> None:
    """Neither an empty folder nor a missing one is taken for a data set."""
    for data in (tmp_path, tmp_path / "missing"):
        with pytest.raises(DatasetError, match="Expected train/<class>/"):
            training_folder(data)


def test_images_are_listed_by_class_and_name_and_other_files_are_passed_over(tmp_path: Path) -> None:
    """The order of the files depends on nothing but their names."""
    fill(tmp_path, beach=2, forest=1)
    (tmp_path / "beach" / "Thumbs.db").write_bytes(b"")
    (tmp_path / "readme.txt").write_text("")
    files = list_images(tmp_path)
    assert [path.name for path in files.paths] == ["beach00.jpg", "beach01.jpg", "forest00.jpg"]
    assert files.labels == (0, 0, 1)
    assert len(files) == 3


def test_labels_follow_the_model_and_not_the_folder(tmp_path: Path) -> None:
    """With a model's classes, indices are the model's, also when the folder has fewer classes."""
    fill(tmp_path, beach=1, forest=1)
    files = list_images(tmp_path, ("river", "forest", "beach"))
    assert files.classes == ("river", "forest", "beach")
    assert {path.parent.name: label for path, label in zip(files.paths, files.labels, strict=True)} == {
        "forest": 1,
        "beach": 2,
    }


def test_a_class_the_model_does_not_know_is_an_error(tmp_path: Path) -> None:
    """A folder that no output stands for is named."""
    with pytest.raises(DatasetError, match="volcano"):
        list_images(fill(tmp_path, beach=1, volcano=1), ("beach", "forest"))


def test_class_folders_without_images_are_an_error(tmp_path: Path) -> None:
    """Empty class folders are no data set."""
    with pytest.raises(DatasetError, match="No images"):
        list_images(fill(tmp_path, beach=0))


def test_a_split_is_stratified_disjoint_and_complete(tmp_path: Path) -> None:
    """Every class gives the same share to the second part, and each file lies in exactly one part."""
    files = list_images(fill(tmp_path, beach=20, forest=10))
    kept, held = stratified_split(files, 0.2, seed=1)
    assert Counter(held.labels) == {0: 4, 1: 2}
    assert not set(kept.paths) & set(held.paths)
    assert set(kept.paths) | set(held.paths) == set(files.paths)
    assert all(path.parent.name == files.classes[label] for path, label in zip(held.paths, held.labels, strict=True))


def test_the_seed_alone_decides_the_split(tmp_path: Path) -> None:
    """The same seed cuts the same files in every run, another seed cuts others."""
    files = list_images(fill(tmp_path, beach=20, forest=20))
    assert stratified_split(files, 0.25, seed=5) == stratified_split(files, 0.25, seed=5)
    assert stratified_split(files, 0.25, seed=5) != stratified_split(files, 0.25, seed=6)
    held = stratified_split(files, 0.25, seed=20260101)[1]
    assert [int(path.stem[-2:]) for path in held.paths] == [3, 7, 11, 12, 13, 1, 16, 17, 18, 19]


def test_pixels_keep_the_order_of_the_files_and_progress_counts_them(tmp_path: Path) -> None:
    """Row i of the pixels is file i, and progress rises by one a file."""
    files = list_images(fill(tmp_path, ".png", beach=1, forest=2))
    seen: list[int] = []
    pixels = read_pixels(files, seen.append)
    assert pixels.images[:, 0, 0, 0].tolist() == [0, 40, 40]
    assert pixels.images[:, 0, 0, 1].tolist() == [0, 0, 1]
    assert pixels.labels.tolist() == [0, 1, 1]
    assert pixels.labels.dtype == np.int64
    assert seen == [1, 2, 3]


def test_a_file_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    """One broken file among thousands can be found from the message."""
    path = fill(tmp_path, beach=1) / "beach" / "broken.jpg"
    path.write_bytes(b"\xff\xd8\xff")
    with pytest.raises(DatasetError, match=r"broken\.jpg"):
        read_image(path)
    with pytest.raises(DatasetError, match=r"broken\.jpg"):
        read_pixels(list_images(tmp_path))
