"""Labelled images on disk: one folder per class, split by folder or by seed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from model.errors import DatasetError, ImageRejected
from model.imaging.bounds import read_image_file
from model.imaging.decode import DecodedImage, decode_image
from model.imaging.input_spec import InputSpec

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff"}
_ORIGINAL_LAYOUT = Path("UCMerced_LandUse/Images")


class LabelledFiles(Struct, frozen=True):
    """Image paths and their class indices. `classes` holds the class names in index order."""

    paths: tuple[Path, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)


class LabelledImages(Struct, frozen=True):
    """Decoded images: `pixels` is uint8 [n, height, width, 3], `labels` is int64 [n]."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]


def find_training_folder(data: Path) -> Path:
    """Return the folder with the training classes: `data`/train, the original layout, or `data` itself.

    Raises DatasetError if none of them contains class folders.
    """
    return _find_class_folders(data, "train")


def find_evaluation_folder(data: Path) -> Path:
    """Return `data`/test if it exists; otherwise search like `find_training_folder`. Raises DatasetError."""
    return _find_class_folders(data, "test")


def find_validation_folder(data: Path) -> Path | None:
    """Return `data`/validation, or None if validation images must be split off from the training images."""
    return data / "validation" if (data / "validation").is_dir() else None


def split_training_data(
    data: Path, fraction: float, seed: int, classes: Sequence[str] | None = None
) -> tuple[LabelledFiles, LabelledFiles]:
    """Return the training and the validation images. By default, the classes are the names of the training folders.

    The validation images are those in `data`/validation, or otherwise `fraction` of the training images, chosen by
    `seed`.
    Raises DatasetError.
    """
    files = list_images(find_training_folder(data), classes)
    validation = find_validation_folder(data)
    if validation is None:
        return split_by_class(files, fraction, seed)
    return files, list_images(validation, files.classes)


def find_test_folder(data: Path) -> Path | None:
    """Return `data`/test, or None if the data set has no separate test images."""
    return data / "test" if (data / "test").is_dir() else None


def list_images(folder: Path, classes: Sequence[str] | None = None, *, skip_unknown: bool = False) -> LabelledFiles:
    """List the images in `folder`/<class>/, sorted by class and then by name.

    If `classes` is given, labels are indices into it. Raises DatasetError if there are no images, or if a folder
    matches none of these classes and `skip_unknown` is false.
    """
    class_folders = {path.name: path for path in sorted(folder.iterdir()) if path.is_dir()}
    names = tuple(classes) if classes is not None else tuple(class_folders)
    unknown = sorted(set(class_folders) - set(names))
    if unknown and not skip_unknown:
        raise DatasetError(f"{folder} contains classes that the model does not have: {', '.join(unknown)}.")
    pairs = [
        (path, index)
        for index, name in enumerate(names)
        if name in class_folders
        for path in sorted(class_folders[name].iterdir())
        if path.suffix.lower() in IMAGE_SUFFIXES
    ]
    if not pairs:
        raise DatasetError(f"No images in {folder}. Expected {folder}/<class>/*.jpg or *.tif.")
    return LabelledFiles(tuple(path for path, _ in pairs), tuple(label for _, label in pairs), names)


def split_by_class(files: LabelledFiles, fraction: float, seed: int) -> tuple[LabelledFiles, LabelledFiles]:
    """Split into (training, validation), moving `fraction` of every class to validation.

    The result depends only on the order of the files and on the seed. Raises DatasetError if a part has no images.
    """
    generator = np.random.default_rng(seed)
    labels = np.asarray(files.labels)
    validation: set[int] = set()
    for label in range(len(files.classes)):
        members = np.flatnonzero(labels == label)
        validation.update(generator.permutation(members)[: round(len(members) * fraction)].tolist())
    training = [index for index in range(len(files)) if index not in validation]
    if not training or not validation:
        raise DatasetError(
            f"The classes have too few images to use {100 * fraction:g} % of each for validation. Add images, or put "
            "validation images into a folder validation/<class>/ of the data set."
        )
    return _select(files, training), _select(files, sorted(validation))


def compute_list_digest(splits: Mapping[str, LabelledFiles]) -> str:
    """Return the SHA-256, in hex, of the split, class, name and size of each file, which identifies the data."""
    lines = sorted(
        f"{split}/{files.classes[label]}/{path.name} {path.stat().st_size}"
        for split, files in splits.items()
        for path, label in zip(files.paths, files.labels, strict=True)
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def read_image(path: Path, spec: InputSpec) -> DecodedImage:
    """Decode one file as the gateway does for a model with this input. Raises DatasetError with the file's path."""
    return decode_file(path, read_file(path), spec)


def read_file(path: Path) -> bytes:
    """Read an image without decoding it. Raises DatasetError with the path if it is too large."""
    with _naming_file(path):
        return read_image_file(path)


def decode_file(path: Path, content: bytes, spec: InputSpec) -> DecodedImage:
    """Decode the content of the file `path`, as `read_image` does. Raises DatasetError with the path."""
    with _naming_file(path):
        return decode_image(content, spec)


@contextmanager
def _naming_file(path: Path) -> Iterator[None]:
    try:
        yield
    except ImageRejected as error:
        raise DatasetError(f"{path}: {error} Repair or remove the file.") from error


def read_images(
    files: LabelledFiles, spec: InputSpec, progress: Callable[[int], object] = lambda _: None
) -> LabelledImages:
    """Decode every file, and call `progress` with the number of decoded files. Raises DatasetError."""
    pixels = np.empty((len(files), *spec.shape), np.uint8)
    for index, path in enumerate(files.paths):
        pixels[index] = read_image(path, spec).pixels
        progress(index + 1)
    return LabelledImages(pixels, np.asarray(files.labels, np.int64))


def _select(files: LabelledFiles, indices: Sequence[int]) -> LabelledFiles:
    return LabelledFiles(
        tuple(files.paths[index] for index in indices),
        tuple(files.labels[index] for index in indices),
        files.classes,
    )


def _find_class_folders(data: Path, split: str) -> Path:
    for folder in (data / split, data / _ORIGINAL_LAYOUT, data / _ORIGINAL_LAYOUT.name, data):
        if folder.is_dir() and any(path.is_dir() for path in folder.iterdir()):
            return folder
    if not data.is_dir():
        raise DatasetError(f"{data} is not a folder. Give a folder of labelled images.")
    raise DatasetError(
        f"No class folders in {data}. Expected {split}/<class>/, {_ORIGINAL_LAYOUT}/<class>/ or <class>/."
    )
