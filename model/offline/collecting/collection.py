"""Collect labelled images one by one into a folder, which becomes the data set when it is complete."""

from __future__ import annotations

import dataclasses
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from msgspec import Struct, field

from model.errors import DatasetError
from model.imaging.decode import sniff_format
from model.offline.collecting.similarity import compute_difference_hash, group_similar
from model.offline.collecting.splits import Split, choose_split_of_group

_SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "TIFF": ".tif"}


@dataclasses.dataclass(frozen=True, slots=True)
class LabelledImage:
    """An image that was predicted and labelled. `prediction` is the id of its prediction, `sha256` is in hex."""

    prediction: str
    model: str
    label: str
    sha256: str
    content: bytes = dataclasses.field(repr=False)


class _Collected(Struct):
    """One image, with all labels, predictions and models."""

    sha256: str
    suffix: str
    difference_hash: int
    labels: set[str] = field(default_factory=set)
    predictions: list[str] = field(default_factory=list)
    models: set[str] = field(default_factory=set)


class DatasetImage(Struct, frozen=True):
    """An image of the data set. `group` is the SHA-256 of the oldest near duplicate; a group has one split."""

    path: str
    label: str
    split: Split
    sha256: str
    group: str
    predictions: Sequence[str]
    models: Sequence[str]


class LabelConflict(Struct, frozen=True):
    """Predictions for one image, or for near duplicates, with different labels."""

    labels: Sequence[str]
    predictions: Sequence[str]


class Dataset(Struct, frozen=True):
    """The collected images. Images with several labels are left out, and listed in `conflicts`.

    Near duplicates with different labels stay in the data set, and are listed in `doubtful`. `duplicates` counts
    further labelled predictions for the same image.
    """

    images: Sequence[DatasetImage]
    conflicts: Sequence[LabelConflict]
    doubtful: Sequence[LabelConflict]
    duplicates: int

    def count(self) -> Counter[tuple[str, Split]]:
        """Return the number of images by label and split."""
        return Counter((image.label, image.split) for image in self.images)


class Collector:
    """Writes the images to `folder`, which is created with access only for its owner. Methods raise OSError.

    Folders below it have the default mode: a folder that already exists should be private to its owner, too.
    `earlier_splits` are the splits of images in earlier data sets, by SHA-256 in hex.
    """

    def __init__(self, folder: Path, earlier_splits: Mapping[str, Split] = MappingProxyType({})) -> None:
        self._folder = folder
        self._earlier_splits = earlier_splits
        self._incoming = folder / ".incoming"
        self._images: dict[str, _Collected] = {}
        folder.mkdir(mode=0o700, exist_ok=True)  # mkdir(parents=True) would create it with the default mode
        self._incoming.mkdir(mode=0o700)

    def add(self, image: LabelledImage) -> None:
        """Add the image of a prediction; call this in order of the predictions. Raises ImageRejected, DatasetError."""
        _check_label(image.label)
        collected = self._images.get(image.sha256)
        if collected is None:
            suffix = _SUFFIXES[sniff_format(image.content)]
            collected = _Collected(image.sha256, suffix, compute_difference_hash(image.content))
            self._locate(collected).write_bytes(image.content)
            self._images[image.sha256] = collected
        collected.labels.add(image.label)
        collected.predictions.append(image.prediction)
        collected.models.add(image.model)

    def finish(self, classes: Sequence[str]) -> Dataset:
        """Move the images to SPLIT/CLASS/SHA256.*. Each of `classes` gets a training folder, even without images.

        Raises DatasetError.
        """
        for name in classes:
            _check_class(name)
        for name in classes:
            (self._folder / Split.TRAIN / name).mkdir(parents=True, exist_ok=True)
        clear = [image for image in self._images.values() if len(image.labels) == 1]
        groups = group_similar([image.difference_hash for image in clear])
        splits = self._choose_splits(clear, groups)
        images = [
            self._move(image, clear[first].sha256, splits[first]) for image, first in zip(clear, groups, strict=True)
        ]
        shutil.rmtree(self._incoming)
        return Dataset(
            images=images,
            conflicts=[_describe_conflict([image]) for image in self._images.values() if len(image.labels) > 1],
            doubtful=list(_find_doubtful(clear, groups)),
            duplicates=sum(len(image.predictions) - 1 for image in self._images.values()),
        )

    def _choose_splits(self, images: Sequence[_Collected], groups: Sequence[int]) -> Mapping[int, Split]:
        """Return the split of each group by its first image."""
        earlier: dict[int, set[Split]] = {first: set() for first in groups}
        for image, first in zip(images, groups, strict=True):
            if image.sha256 in self._earlier_splits:
                earlier[first].add(self._earlier_splits[image.sha256])
        return {first: choose_split_of_group(images[first].sha256, splits) for first, splits in earlier.items()}

    def _move(self, image: _Collected, group: str, split: Split) -> DatasetImage:
        (label,) = image.labels
        path = self._folder / split / label / f"{image.sha256}{image.suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        self._locate(image).rename(path)
        return DatasetImage(
            path=str(path.relative_to(self._folder)),
            label=label,
            split=split,
            sha256=image.sha256,
            group=group,
            predictions=image.predictions,
            models=sorted(image.models),
        )

    def _locate(self, image: _Collected) -> Path:
        return self._incoming / f"{image.sha256}{image.suffix}"


def _check_label(label: str) -> None:
    """Raise DatasetError if the label cannot be a folder name."""
    if not _is_folder_name(label):
        raise DatasetError(f"The label {label!r} cannot be the name of a folder. Label its predictions differently.")


def _check_class(name: str) -> None:
    """Raise DatasetError if the class cannot be a folder name. It comes from the manifest of a model."""
    if not _is_folder_name(name):
        raise DatasetError(
            f"The class {name!r} of a model cannot be the name of a folder. Choose a --since after its predictions."
        )


def _is_folder_name(name: str) -> bool:
    return bool(name) and not name.startswith(".") and "/" not in name and "\0" not in name


def _find_doubtful(images: Sequence[_Collected], groups: Sequence[int]) -> Iterator[LabelConflict]:
    """Yield the groups of near duplicates that have several labels."""
    members: dict[int, list[_Collected]] = {}
    for image, first in zip(images, groups, strict=True):
        members.setdefault(first, []).append(image)
    for group in members.values():
        if len(set().union(*(image.labels for image in group))) > 1:
            yield _describe_conflict(group)


def _describe_conflict(images: Sequence[_Collected]) -> LabelConflict:
    labels = set[str]().union(*(image.labels for image in images))
    return LabelConflict(sorted(labels), [each for image in images for each in image.predictions])
