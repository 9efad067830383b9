"""What is known about a start model: its classes and its input."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from model.errors import DatasetError
from model.imaging.input_spec import InputSpec
from model.offline.export.record import read_record
from model.registry.artefact import MANIFEST, read_manifest


def read_start(model: Path, classes: Sequence[str]) -> InputSpec:
    """Return the input of the `.keras` file `model`, from the manifest or the metrics.json next to it.

    Raises DatasetError when the model does not have exactly these classes, and ArtefactError, ExportRefused.
    """
    if model.with_name(MANIFEST).exists():
        manifest = read_manifest(model.parent)
        known, spec = manifest.classes, manifest.input_spec
    else:
        record = read_record(model, len(classes))
        known, spec = record.classes, record.input_spec
    if tuple(known) != tuple(classes):
        different = ", ".join(sorted(set(known) ^ set(classes))) or "their order"
        raise DatasetError(
            f"The classes of the data and of {model} differ: {different}. "
            "Give each class of the model a folder, or start a new model with `atalaya train`."
        )
    return spec
