"""Read the record of a start model: its classes, its input, and the number of its training images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from model.errors import DatasetError
from model.imaging.input_spec import InputSpec
from model.offline.export.record import read_record
from model.registry.artefact import MANIFEST, read_manifest


class StartRecord(Struct, frozen=True):
    """The record of a model's training. `data` is empty if the model was not trained here."""

    input_spec: InputSpec
    data: Mapping[str, Any]

    def check_split(self, images: int) -> None:
        """Check that splitting this many images gives the validation images of the model's own training.

        A split of other images could select images that the model was trained on. Raises DatasetError.
        """
        counts = self.data.get("images", {})
        recorded = counts.get("training", 0) + counts.get("validation", 0)
        if recorded not in {0, images}:
            raise DatasetError(
                f"The data has {images} training images, but the start model was trained with {recorded}: validation "
                "images split off from the data would include some that it was trained on. Put images that it has not "
                "seen into validation/, as `atalaya dataset build` does."
            )


def read_start(model: Path, classes: Sequence[str]) -> StartRecord:
    """Return the record of the `.keras` file `model`, from the manifest or the metrics.json next to it.

    Raises DatasetError if the model does not have exactly these classes, and ArtefactError, ExportRefused.
    """
    if model.with_name(MANIFEST).exists():
        manifest = read_manifest(model.parent)
        model_classes, record = manifest.classes, StartRecord(manifest.input_spec, manifest.data)
    else:
        training = read_record(model, len(classes))
        model_classes, record = training.classes, StartRecord(training.input_spec, training.data)
    if tuple(model_classes) != tuple(classes):
        different = ", ".join(sorted(set(model_classes) ^ set(classes))) or "their order"
        raise DatasetError(
            f"The classes of the data and of {model} differ: {different}. "
            "Give each class of the model a folder, or start a new model with `atalaya train`."
        )
    return record
