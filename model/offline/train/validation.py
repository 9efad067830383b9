"""Measure the weights of an epoch on clean and on changed validation images."""

from __future__ import annotations

import keras
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from model.offline.changes import ALL_CHANGES
from model.offline.dataset import LabelledImages

_MIN_PROBABILITY = 1e-7


class Validation(Struct, frozen=True):
    """Validation images, uint8 [n, height, width, 3], and the same images with one change each."""

    clean: LabelledImages
    changed: LabelledImages

    @classmethod
    def of(cls, images: LabelledImages) -> Validation:
        """Apply the changes of `atalaya evaluate --robustness` in turn, one to each image."""
        changes = list(ALL_CHANGES.values())
        changed = [changes[index % len(changes)](pixels) for index, pixels in enumerate(images.pixels)]
        return cls(images, LabelledImages(np.stack(changed), images.labels))

    def measure(self, model: keras.Model) -> dict[str, float]:
        """Return accuracy and log loss of both sets, and `val_score`, the mean of the two losses (lower is better)."""
        accuracy, loss = _measure(model, self.clean)
        changed_accuracy, changed_loss = _measure(model, self.changed)
        return {
            "val_accuracy": accuracy,
            "val_loss": loss,
            "val_changed_accuracy": changed_accuracy,
            "val_changed_loss": changed_loss,
            "val_score": (loss + changed_loss) / 2,
        }


def measure_robustness(model: keras.Model, images: LabelledImages) -> dict[str, float]:
    """Return the accuracy on clean images, then under each change of `atalaya evaluate --robustness`."""
    results = {"clean": _measure(model, images)[0]}
    for name, change in ALL_CHANGES.items():
        changed = np.stack([change(pixels) for pixels in images.pixels])
        results[name] = _measure(model, LabelledImages(changed, images.labels))[0]
    return results


def _measure(model: keras.Model, images: LabelledImages) -> tuple[float, float]:
    probabilities: NDArray[np.float32] = model.predict(images.pixels, batch_size=32, verbose=0)
    true_class = probabilities[np.arange(len(images.labels)), images.labels]
    accuracy = (probabilities.argmax(axis=1) == images.labels).mean()
    return float(accuracy), float(-np.log(np.maximum(true_class, _MIN_PROBABILITY)).mean())
