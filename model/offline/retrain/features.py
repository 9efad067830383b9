"""Compute and store the output of the lower layers for each image. Search and fit train only the layers above them.

The forward pass of the lower layers takes most of the time of a training step, and is the same in every trial.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from msgspec import Struct
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from model.offline.dataset import LabelledImages
from model.offline.retrain.budget import Budget
from model.offline.train.batches import TrainingBatches
from model.offline.train.validation import Validation

LAST_FROZEN = "block6d_add"  # the output of EfficientNetB0's last block but one: 8x8x192 for 256x256 pixels
_MAX_VIEWS = 4
_SHARE = 0.15  # the share of the budget after which no further view is computed
_BATCH = 32


class Features(Struct, frozen=True):
    """Features of the training images, in `views` that are augmented differently, and of the validation images."""

    views: tuple[Path, ...]
    validation: Validation

    def load_view(self, epoch: int) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
        """Return the features, [n, height, width, channels], and the one-hot labels, [n, classes], for an epoch."""
        with np.load(self.views[epoch % len(self.views)]) as stored:
            return stored["features"], stored["labels"]


def compute_features(
    folder: Path, network: keras.Model, batches: TrainingBatches, validation: LabelledImages, budget: Budget
) -> Features:
    """Compute the features that `folder` lacks, in as many views as the budget allows, but at least one."""
    folder.mkdir(exist_ok=True)
    lower = keras.Model(network.input, network.get_layer(LAST_FROZEN).output)
    path = folder / "validation.npz"
    if not path.exists():
        _write(path, _compute_validation(lower, validation))
    with np.load(path) as stored:
        clean, changed = (LabelledImages(stored[name], validation.labels) for name in ("unchanged", "changed"))
    views: list[Path] = []
    while len(views) < _MAX_VIEWS and (not views or budget.remaining_s(_SHARE) > 0):
        views.append(folder / f"view-{len(views)}.npz")
        if not views[-1].exists():
            dataset = batches.of_epoch(len(views) - 1, network.input_shape[1], mixed=False)
            _write(views[-1], _compute_view(lower, dataset, batches.steps, len(views)))
            budget.save()
    return Features(tuple(views), Validation(clean, changed))


def _compute_view(
    lower: keras.Model, dataset: tf.data.Dataset, steps: int, number: int
) -> dict[str, NDArray[np.generic]]:
    features, labels = [], []
    for images, one_hot in _track(dataset, f"Features of the training images, view {number}", steps):
        features.append(_predict(lower, images))
        labels.append(one_hot.numpy())
    return {"features": np.concatenate(features), "labels": np.concatenate(labels)}


def _compute_validation(lower: keras.Model, images: LabelledImages) -> dict[str, NDArray[np.generic]]:
    validation = Validation.of(images)
    starts = range(0, len(images.labels), _BATCH)
    return {
        name: np.concatenate(
            [
                _predict(lower, part.pixels[start : start + _BATCH])
                for start in _track(starts, f"Features of the {name} validation images", len(starts))
            ]
        )
        for name, part in (("unchanged", validation.clean), ("changed", validation.changed))
    }


def _track(sequence: Iterable[tf.Tensor], description: str, total: int) -> Iterable[tf.Tensor]:
    """Show a progress bar on standard error if that is a terminal, otherwise a line on standard output."""
    console = Console(stderr=True)
    if not console.is_terminal:
        print(f"{description}.", flush=True)
    return track(sequence, description, total=total, console=console, transient=True, disable=not console.is_terminal)


def _predict(lower: keras.Model, images: tf.Tensor | NDArray[np.uint8]) -> NDArray[np.float16]:
    features: NDArray[np.float32] = lower.predict_on_batch(images)
    return features.astype(np.float16)


def _write(path: Path, arrays: dict[str, NDArray[np.generic]]) -> None:
    """Write the file atomically."""
    temporary = path.with_suffix(".temporary.npz")
    np.savez(temporary, allow_pickle=False, **arrays)
    temporary.replace(path)
