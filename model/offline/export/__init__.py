"""From a `.keras` file to a served artefact. Importing this package loads no TensorFlow; its modules do."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What to export and where to.

    `model` is a .keras file, `out` the artefact folder to make, `name` and `version` say what it will be called;
    the ONNX graph is compared with the model on the images found below the folder `images`.
    """

    model: str
    out: str
    name: str
    version: str
    images: str | None = None
