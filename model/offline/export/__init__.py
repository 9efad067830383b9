"""Export a `.keras` file to an artefact that can be served. This module itself does not import TensorFlow."""

from __future__ import annotations

from msgspec import Struct


class ExportOptions(Struct, frozen=True):
    """The model to export, and the artefact to create.

    `model` is the .keras file, `out` the artefact folder to create, `name` and `version` identify the artefact.
    `images` is a folder; the ONNX graph is compared with the model on the images in it and its subfolders. `data` is
    the training data, on whose validation images calibration, abstention and prediction sets are fitted; without it,
    the artefact has none of them. `FittingSources` explains `photographs` and `other_scenes`; `origin` names their
    sources and licences for the model card. `held_out` says that `data` was not used in training, unless the training
    record says which part was.
    """

    model: str
    out: str
    name: str
    version: str
    images: str | None = None
    data: str | None = None
    photographs: str | None = None
    other_scenes: str | None = None
    origin: str | None = None
    held_out: bool = False
