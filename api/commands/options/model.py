"""The option that chooses a model, and the interpreter of the Keras environment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from api.services.registry import find_model_url
from api.settings import load_settings
from model.backends.base import Backend
from model.backends.open import open_backend

ModelOption = Annotated[Path | None, typer.Option(help="An artefact folder. Default: the one in MODEL__URL.")]


def open_chosen_backend(model: Path | None, threads: int = 1) -> Backend:
    """Open the artefact folder `model`, or the configured model. Its signature is verified if a gateway would do so."""
    settings = load_settings()
    url = find_model_url(settings) if model is None else f"onnx://{model}"
    return open_backend(url, threads, key=settings.artefact_key())


def find_keras_python() -> Path | None:
    """Return the configured interpreter of the Keras environment; None for the default one."""
    configured = load_settings().model.keras_python
    return None if configured is None else Path(configured)
