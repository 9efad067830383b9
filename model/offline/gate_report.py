"""Measure how many aerial and other images a model's gate rejects, on images that it was not fitted on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct
from msgspec.structs import asdict
from numpy.typing import NDArray

from model.backends.base import Backend
from model.confidence.abstention import AerialGate
from model.errors import DatasetError
from model.offline.changes import ALL_CHANGES, Pixels
from model.offline.dataset import find_evaluation_folder, list_images
from model.offline.evaluate import predict_changed_images, predict_images
from model.offline.gate_images import list_categories, list_photographs
from model.offline.negatives.catalogue import list_generated
from model.offline.negatives.roles import Role

_GENERATED_PER_KIND = 12
_NEAR_MISSES = 8


class GateImages(Struct, frozen=True):
    """Images of one group, and the category of each. `name` is the group's name in the report."""

    name: str
    is_aerial: bool
    images: Sequence[Path] | Sequence[Pixels]
    categories: Sequence[str]
    change: Callable[[Pixels], Pixels] | None = None

    def __len__(self) -> int:
        return len(self.images)


class GateRow(Struct, frozen=True):
    """The number of images in a group, and of `refused` ones, which the gate classifies as not aerial."""

    name: str
    is_aerial: bool
    images: int
    refused: int

    @property
    def share(self) -> float:
        return self.refused / self.images


class NearMiss(Struct, frozen=True):
    """A category of images that are not aerial, and how many of them the gate accepts."""

    group: str
    category: str
    images: int
    accepted: int


class GateReport(Struct, frozen=True):
    """A row for each group, and the categories that the gate accepts most often."""

    rows: tuple[GateRow, ...]
    near_misses: tuple[NearMiss, ...]

    def as_dict(self) -> dict[str, Any]:
        return {
            "groups": [{**asdict(row), "share": round(row.share, 4)} for row in self.rows],
            "near_misses": [asdict(miss) for miss in self.near_misses],
        }


def list_gate_images(
    backend: Backend, data: Path, photographs: Path | None = None, other_scenes: Path | None = None
) -> list[GateImages]:
    """List the test images and their changes, scenes of other sensors, photographs and generated images.

    Raises DatasetError.
    """
    files = list_images(find_evaluation_folder(data), backend.info.classes)
    labels = [files.classes[label] for label in files.labels]
    groups = [GateImages("test images", True, files.paths, labels)]
    for name, change in ALL_CHANGES.items():
        groups.append(GateImages(f"test images, {name}", True, files.paths, labels, change))
    if other_scenes is not None:
        groups += _group_by_category(other_scenes)
    if photographs is not None:
        photos = list_photographs(photographs, Role.TEST)
        groups.append(GateImages("photographs", False, photos.paths, photos.categories))
    generated = list_generated(Role.TEST, _GENERATED_PER_KIND, backend.info.input_spec.size)
    for category in dict.fromkeys(image.kind.category for image in generated):
        members = [image for image in generated if image.kind.category == category]
        kinds = [image.kind.name for image in members]
        groups.append(GateImages(category, False, [image.make() for image in members], kinds))
    return groups


def measure_gate(
    backend: Backend, groups: Sequence[GateImages], progress: Callable[[int], object] = lambda _: None, threads: int = 1
) -> GateReport:
    """Count the rejected images of each group. Raises DatasetError if the model has no gate.

    Calls `progress` with the number of predictions done so far.
    """
    gate = backend.info.confidence.abstention.gate
    if gate is None:
        raise DatasetError(f"{backend.info.full_name} has no gate. Export the model with --data and --photos.")
    rows, misses, done = [], [], 0
    for group in groups:
        refused = _find_refused(backend, gate, group, partial(_add_progress, progress, done), threads)
        done += len(group)
        rows.append(GateRow(group.name, group.is_aerial, len(group), int(refused.sum())))
        if not group.is_aerial:
            misses += _count_accepted(group, refused)
    misses.sort(key=lambda miss: (-miss.accepted / miss.images, miss.category))
    return GateReport(tuple(rows), tuple(miss for miss in misses if miss.accepted)[:_NEAR_MISSES])


def _add_progress(progress: Callable[[int], object], before: int, done: int) -> None:
    progress(before + done)


def _group_by_category(folder: Path) -> list[GateImages]:
    files = list_categories(folder)
    return [
        GateImages(
            f"other scenes, {category}",
            True,
            [path for path, name in zip(files.paths, files.categories, strict=True) if name == category],
            [name for name in files.categories if name == category],
        )
        for category in dict.fromkeys(files.categories)
    ]


def _find_refused(
    backend: Backend, gate: AerialGate, group: GateImages, progress: Callable[[int], object], threads: int
) -> NDArray[np.bool_]:
    if group.change is None:
        outputs = predict_images(backend, group.images, progress, threads=threads)
    else:
        changes = {group.name: group.change}
        outputs = predict_changed_images(backend, group.images, changes, progress, threads=threads)[group.name]
    return np.array([gate.score(pooled) < 0 for pooled in outputs.pooled])


def _count_accepted(group: GateImages, refused: NDArray[np.bool_]) -> list[NearMiss]:
    names = np.asarray(group.categories)
    return [
        NearMiss(group.name, name, int((names == name).sum()), int((~refused[names == name]).sum()))
        for name in dict.fromkeys(group.categories)
    ]
