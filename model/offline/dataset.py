"""Labelled images on disk: one folder a class, split by folder or by seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.errors import DatasetError, ImageRefused
from model.imaging.decode import INPUT_SIZE, DecodedImage, decode_image

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff"}


@dataclass(frozen=True, slots=True)
class LabelledFiles:
    """Paths and their class indices; `classes` names the indices in order."""

    paths: tuple[Path, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)


@dataclass(frozen=True, slots=True)
class Pixels:
    """Decoded images: `images` is uint8 [n, 256, 256, 3], `labels` is int64 [n]."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


def training_folder(data: Path) -> Path:
    """Where the training classes lie: DIR/train, the original layout, or DIR itself."""
    candidates = (data / "train", data / "UCMerced_LandUse" / "Images", data / "Images", data)
    return _first_with_classes(data, candidates)


def evaluation_folder(data: Path) -> Path:
    """Where the classes to evaluate on lie: DIR/test where there is one, else as `training_folder`."""
    candidates = (data / "test", data / "UCMerced_LandUse" / "Images", data / "Images", data)
    return _first_with_classes(data, candidates)


def held_out_folder(data: Path) -> Path | None:
    """DIR/test, or None for a layout that keeps no test images apart."""
    return data / "test" if (data / "test").is_dir() else None


def list_images(folder: Path, classes: Sequence[str] | None = None) -> LabelledFiles:
    """List the images below `folder`/<class>/, sorted by class and then by name.

    With `classes`, indices follow that order and a folder it lacks is an error. Raises DatasetError.
    """
    found = {path.name: path for path in sorted(folder.iterdir()) if path.is_dir()}
    names = tuple(classes) if classes is not None else tuple(found)
    unknown = sorted(set(found) - set(names))
    if unknown:
        raise DatasetError(f"{folder} has classes that the model does not know: {', '.join(unknown)}.")
    pairs = [
        (path, index)
        for index, name in enumerate(names)
        if name in found
        for path in sorted(found[name].iterdir())
        if path.suffix.lower() in _SUFFIXES
    ]
    if not pairs:
        raise DatasetError(f"No images below {folder}. Expected {folder}/<class>/*.jpg or *.tif.")
    return LabelledFiles(tuple(path for path, _ in pairs), tuple(label for _, label in pairs), names)


def stratified_split(files: LabelledFiles, fraction: float, seed: int) -> tuple[LabelledFiles, LabelledFiles]:
    """Cut `fraction` of every class off as the second part; the same seed cuts the same files."""
    generator = np.random.default_rng(seed)
    labels = np.asarray(files.labels)
    held: set[int] = set()
    for label in range(len(files.classes)):
        members = np.flatnonzero(labels == label)
        held.update(generator.permutation(members)[: round(len(members) * fraction)].tolist())
    kept = [index for index in range(len(files)) if index not in held]
    return _take(files, kept), _take(files, sorted(held))


def read_image(path: Path) -> DecodedImage:
    """Decode one file with the gateway's own decoder. Raises DatasetError, naming the file."""
    try:
        return decode_image(path.read_bytes())
    except ImageRefused as error:
        raise DatasetError(f"{path}: {error} Repair or remove the file.") from error


def read_pixels(files: LabelledFiles, progress: Callable[[int], object] = lambda _: None) -> Pixels:
    """Decode every file; `progress` is told how many are done. Raises DatasetError."""
    images = np.empty((len(files), *INPUT_SIZE, 3), np.uint8)
    for index, path in enumerate(files.paths):
        images[index] = read_image(path).pixels
        progress(index + 1)
    return Pixels(images, np.asarray(files.labels, np.int64))


def _take(files: LabelledFiles, indices: Sequence[int]) -> LabelledFiles:
    return LabelledFiles(
        tuple(files.paths[index] for index in indices),
        tuple(files.labels[index] for index in indices),
        files.classes,
    )


def _first_with_classes(data: Path, candidates: Sequence[Path]) -> Path:
    for folder in candidates:
        if folder.is_dir() and any(path.is_dir() for path in folder.iterdir()):
            return folder
    raise DatasetError(
        f"No class folders in {data}. Expected train/<class>/, UCMerced_LandUse/Images/<class>/ or <class>/."
    )
