"""List the images for fitting, and compute a model's outputs for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from model.backends.base import Backend
from model.imaging.input_spec import InputSpec
from model.offline.changes import ALL_CHANGES, CLEAN, Pixels, leave_unchanged
from model.offline.dataset import LabelledFiles, split_training_data
from model.offline.evaluate import Outputs, predict_changed_images
from model.offline.fitting.augmentations import change_mostly, change_randomly
from model.offline.fitting.gate import GateFeatures
from model.offline.gate_images import list_categories, list_photographs
from model.offline.negatives.catalogue import list_generated
from model.offline.negatives.roles import Role, get_first_word

_GENERATED_PER_KIND = 20

Change = Callable[[Pixels], Pixels]
Images = Sequence[Path] | Sequence[Pixels]


class FittingSources(Struct, frozen=True):
    """Folders of images, and the settings with which training split the validation images off from `data`.

    `photographs` contains a folder for each category of images that are not aerial; without it, no gate is fitted.
    `other_scenes` contains folders with unlabelled aerial images of other sensors.
    """

    data: Path
    validation_fraction: float
    seed: int
    photographs: Path | None = None
    other_scenes: Path | None = None

    def split(self, classes: Sequence[str]) -> tuple[LabelledFiles, LabelledFiles]:
        """Return the training and the validation images of the run. Raises DatasetError."""
        return split_training_data(self.data, self.validation_fraction, self.seed, classes)


class ValidationOutputs(Struct, frozen=True, eq=False):
    """Outputs for n unchanged and m changed images, with their labels, int64 [n] and [m]."""

    clean: Outputs
    changed: Outputs
    labels: NDArray[np.int64]
    changed_labels: NDArray[np.int64]


class Predictor(Struct, frozen=True):
    """Predicts images on `threads` threads. Calls `announce` with a sentence before each group of images."""

    backend: Backend
    announce: Callable[[str], object]
    threads: int = 1

    @property
    def input_spec(self) -> InputSpec:
        return self.backend.info.input_spec

    def predict(self, name: str, images: Images, changes: Mapping[str, Change]) -> dict[str, Outputs]:
        """Return the outputs under each change."""
        self.announce(f"Predicting {len(images) * len(changes)} {name}.")
        return predict_changed_images(self.backend, images, changes, threads=self.threads)

    def compute_pooled(self, name: str, images: Images, changes: Mapping[str, Change]) -> NDArray[np.float32]:
        """Return the pooled features of all images under all changes, [n, channels]."""
        return np.concatenate([outputs.pooled for outputs in self.predict(name, images, changes).values()])


def predict_validation(predictor: Predictor, files: LabelledFiles) -> ValidationOutputs:
    """Predict each image unchanged, with the changes of `--robustness`, and with two random changes."""
    changes = {CLEAN: leave_unchanged, **ALL_CHANGES, **_change_randomly(1, 2)}
    outputs = predictor.predict("clean and changed validation images", files.paths, changes)
    clean, labels = outputs.pop(CLEAN), np.asarray(files.labels, np.int64)
    changed = Outputs(
        np.concatenate([part.probabilities for part in outputs.values()]),
        np.concatenate([part.pooled for part in outputs.values()]),
    )
    return ValidationOutputs(clean, changed, labels, np.tile(labels, len(outputs)))


def compute_gate_features(
    predictor: Predictor,
    training: LabelledFiles,
    validation: ValidationOutputs,
    photographs: Path,
    other_scenes: Path | None,
) -> GateFeatures:
    """Compute the features of the training images, mostly changed, and of images that are not aerial.

    Raises DatasetError.
    """
    photos = list_photographs(photographs, Role.FIT)
    words = [get_first_word(category) for category in photos.categories]
    groups = np.unique(words, return_inverse=True)[1]
    size = predictor.input_spec.size
    generated = [image.make() for image in list_generated(Role.FIT, _GENERATED_PER_KIND, size)]
    others = np.empty((0, validation.clean.pooled.shape[1]), np.float32)
    if other_scenes is not None:
        paths = list_categories(other_scenes).paths
        scene_changes = {CLEAN: leave_unchanged, **_change_randomly(5, 6)}
        others = predictor.compute_pooled("scenes of other sensors", paths, scene_changes)
    return GateFeatures(
        scenes=predictor.compute_pooled("training images", training.paths, _change_mostly(3)),
        other_scenes=others,
        photographs=predictor.compute_pooled("photographs", photos.paths, {CLEAN: leave_unchanged}),
        changed_photographs=predictor.compute_pooled("changed photographs", photos.paths, _change_randomly(4)),
        groups=groups,
        generated=predictor.compute_pooled("generated images", generated, _change_mostly(7)),
        clean=validation.clean.pooled,
        changed=validation.changed.pooled,
    )


def _change_randomly(*seeds: int) -> dict[str, Change]:
    return {f"random {seed}": partial(change_randomly, seed=seed) for seed in seeds}


def _change_mostly(seed: int) -> dict[str, Change]:
    return {"mostly": partial(change_mostly, seed=seed)}
