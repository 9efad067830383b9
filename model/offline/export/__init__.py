"""Export of a `.keras` file to a served artefact. Only the modules of this package import TensorFlow."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What to export, and where to.

    `model` is the .keras file, `out` the artefact folder to create, `name` and `version` identify the artefact.
    `images` is a folder; the ONNX graph is compared with the model on the images found in it and its subfolders.
    """

    model: str
    out: str
    name: str
    version: str
    images: str | None = None
