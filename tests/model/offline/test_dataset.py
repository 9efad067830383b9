from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace
from PIL import Image

from model.errors import DatasetError
from model.imaging.input_spec import DEFAULT_INPUT, InputSpec
from model.offline.dataset import (
    compute_list_digest,
    find_evaluation_folder,
    find_test_folder,
    find_training_folder,
    list_images,
    read_image,
    read_images,
    split_by_class,
)


def make_data_set(folder: Path, suffix: str = ".jpg", **counts: int) -> Path:
    """Write `counts[name]` single-colour images to each folder/name/ and return the folder."""
    for level, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (8, 8), (40 * level, number, 0)).save(folder / name / f"{name}{number:02}{suffix}")
    return folder


def test_train_and_test_folders_are_used_separately(tmp_path: Path) -> None:
    """DIR/train is the training set; DIR/test is the evaluation set and the test set."""
    make_data_set(tmp_path / "train", beach=2, forest=2)
    make_data_set(tmp_path / "test", beach=1, forest=1)
    assert find_training_folder(tmp_path) == tmp_path / "train"
    assert find_evaluation_folder(tmp_path) == find_test_folder(tmp_path) == tmp_path / "test"


def test_original_layout_of_the_data_set(tmp_path: Path) -> None:
    """The downloaded layout, UCMerced_LandUse/Images/<class>/*.tif, works for training and evaluation."""
    images = make_data_set(tmp_path / "UCMerced_LandUse" / "Images", ".tif", agricultural=3, airplane=2)
    for data in (tmp_path, tmp_path / "UCMerced_LandUse", images):
        assert find_training_folder(data) == find_evaluation_folder(data) == images
        assert find_test_folder(data) is None
    files = list_images(images)
    assert files.classes == ("agricultural", "airplane")
    assert read_images(files, DEFAULT_INPUT).pixels.shape == (5, 256, 256, 3)


def test_folder_that_contains_only_class_folders(tmp_path: Path) -> None:
    """DIR/<class>/ without any other level is a valid data set."""
    make_data_set(tmp_path, river=1, runway=1)
    assert find_training_folder(tmp_path) == find_evaluation_folder(tmp_path) == tmp_path


def test_folder_without_classes_is_rejected_with_the_expected_layout(tmp_path: Path) -> None:
    """An empty folder raises an error that names the layouts that would work."""
    with pytest.raises(DatasetError, match="Expected train/<class>/"):
        find_training_folder(tmp_path)
    with pytest.raises(DatasetError, match="Expected test/<class>/"):
        find_evaluation_folder(tmp_path)


def test_what_is_not_a_folder_is_rejected_as_such(tmp_path: Path) -> None:
    """A missing folder and a file raise an error that says that they are not folders."""
    (tmp_path / "file").touch()
    for name in ("missing", "file"):
        with pytest.raises(DatasetError, match=f"{name} is not a folder"):
            find_evaluation_folder(tmp_path / name)


def test_images_are_listed_by_class_and_name_and_other_files_are_ignored(tmp_path: Path) -> None:
    """The order of the files depends only on their names."""
    make_data_set(tmp_path, beach=2, forest=1)
    (tmp_path / "beach" / "Thumbs.db").write_bytes(b"")
    (tmp_path / "readme.txt").write_text("")
    files = list_images(tmp_path)
    assert [path.name for path in files.paths] == ["beach00.jpg", "beach01.jpg", "forest00.jpg"]
    assert files.labels == (0, 0, 1)
    assert len(files) == 3


def test_labels_are_indices_into_the_models_classes(tmp_path: Path) -> None:
    """Labels are indices into the given classes, even when the folder has fewer classes."""
    make_data_set(tmp_path, beach=1, forest=1)
    files = list_images(tmp_path, ("river", "forest", "beach"))
    assert files.classes == ("river", "forest", "beach")
    assert {path.parent.name: label for path, label in zip(files.paths, files.labels, strict=True)} == {
        "forest": 1,
        "beach": 2,
    }


def test_class_folder_unknown_to_the_model_is_rejected(tmp_path: Path) -> None:
    """The error names the folder whose class is not among the model's."""
    with pytest.raises(DatasetError, match="volcano"):
        list_images(make_data_set(tmp_path, beach=1, volcano=1), ("beach", "forest"))


def test_class_folders_without_images_are_rejected(tmp_path: Path) -> None:
    """A data set of empty class folders raises an error."""
    with pytest.raises(DatasetError, match="No images"):
        list_images(make_data_set(tmp_path, beach=0))


def test_split_is_stratified_disjoint_and_complete(tmp_path: Path) -> None:
    """Every class has the same share in the validation set, and each file is in exactly one of the two sets."""
    files = list_images(make_data_set(tmp_path, beach=20, forest=10))
    training, validation = split_by_class(files, 0.2, seed=1)
    assert Counter(validation.labels) == {0: 4, 1: 2}
    assert not set(training.paths) & set(validation.paths)
    assert set(training.paths) | set(validation.paths) == set(files.paths)
    assert all(
        path.parent.name == files.classes[label]
        for path, label in zip(validation.paths, validation.labels, strict=True)
    )


def test_split_depends_only_on_the_seed(tmp_path: Path) -> None:
    """The same seed selects the same files in every run; another seed selects other files."""
    files = list_images(make_data_set(tmp_path, beach=20, forest=20))
    assert split_by_class(files, 0.25, seed=5) == split_by_class(files, 0.25, seed=5)
    assert split_by_class(files, 0.25, seed=5) != split_by_class(files, 0.25, seed=6)
    validation = split_by_class(files, 0.25, seed=20260101)[1]
    assert [int(path.stem[-2:]) for path in validation.paths] == [3, 7, 11, 12, 13, 1, 16, 17, 18, 19]


def test_digest_of_a_list_of_images(tmp_path: Path) -> None:
    """The digest changes with the size, class or split of a file, but not with the order of the splits."""
    files = list_images(make_data_set(tmp_path, beach=2, forest=2))
    first, second = split_by_class(files, 0.5, seed=1)
    digests = [
        compute_list_digest({"train": first, "test": second}),
        compute_list_digest({"train": second, "test": first}),
        compute_list_digest({"train": replace(first, labels=first.labels[::-1]), "test": second}),
    ]
    assert compute_list_digest({"test": second, "train": first}) == digests[0]
    first.paths[0].write_bytes(b"shorter")
    digests.append(compute_list_digest({"train": first, "test": second}))
    assert len(set(digests)) == 4


def test_images_keep_the_order_of_the_files_and_progress_counts_them(tmp_path: Path) -> None:
    """Row i of the pixels is file i, and progress increases by one per file."""
    files = list_images(make_data_set(tmp_path, ".png", beach=1, forest=2))
    progress: list[int] = []
    images = read_images(files, DEFAULT_INPUT, progress.append)
    assert images.pixels[:, 0, 0, 0].tolist() == [0, 40, 40]
    assert images.pixels[:, 0, 0, 1].tolist() == [0, 0, 1]
    assert images.labels.tolist() == [0, 1, 1]
    assert images.labels.dtype == np.int64
    assert progress == [1, 2, 3]


def test_a_file_that_is_too_large_is_named(tmp_path: Path) -> None:
    """A file above the limit of an image is rejected with its path, even if it does not fit into memory."""
    large = tmp_path / "large.tif"
    large.touch()
    os.truncate(large, 1 << 40)
    with pytest.raises(DatasetError, match=r"large\.tif: The image has \d+ bytes; the limit is 20000000"):
        read_image(large, DEFAULT_INPUT)


def test_images_have_the_size_of_the_models_input(tmp_path: Path) -> None:
    """Images are resized to the input of the model, height before width."""
    files = list_images(make_data_set(tmp_path, beach=2))
    assert read_images(files, InputSpec(width=48, height=32)).pixels.shape == (2, 32, 48, 3)


def test_error_names_the_file_that_cannot_be_decoded(tmp_path: Path) -> None:
    """The error message contains the path of the broken file."""
    path = make_data_set(tmp_path, beach=1) / "beach" / "broken.jpg"
    path.write_bytes(b"\xff\xd8\xff")
    with pytest.raises(DatasetError, match=r"broken\.jpg"):
        read_image(path, DEFAULT_INPUT)
    with pytest.raises(DatasetError, match=r"broken\.jpg"):
        read_images(list_images(tmp_path), DEFAULT_INPUT)


@pytest.mark.parametrize(("count", "fraction"), [(1, 0.5), (4, 0.1), (3, 0.9)])
def test_too_few_images_cannot_be_split(tmp_path: Path, count: int, fraction: float) -> None:
    """If no image remains for validation or for training, the error says what to add."""
    files = list_images(make_data_set(tmp_path, beach=count, forest=count))
    with pytest.raises(DatasetError, match=f"too few images to use {100 * fraction:g} % .* Add images"):
        split_by_class(files, fraction, 0)
