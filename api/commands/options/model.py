"""The option that chooses a model, and the settings of commands around models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from api.services.registry import find_model_url
from api.settings import load_settings

ModelOption = Annotated[Path | None, typer.Option(help="An artefact folder; the one of MODEL__URL if absent.")]


def choose_backend_url(model: Path | None) -> str:
    """Return the URL of the back end for the artefact folder `model`, or the configured one."""
    return find_model_url(load_settings()) if model is None else f"onnx://{model}"


def find_keras_python() -> Path | None:
    """Return the configured interpreter of the Keras environment; None for the default one."""
    configured = load_settings().model.keras_python
    return None if configured is None else Path(configured)
