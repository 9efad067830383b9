"""Finds the model that the routes of the protocol serve."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path
from starlette.requests import Request

from api.deps import get_services
from api.errors import ModelNotServed
from model.backends.base import ModelInfo

Name = Annotated[str, Path(max_length=320)]


def find_model(request: Request, name: str, version: str | None = None) -> ModelInfo:
    """Return the model in service if it has this name and, if one is given, this version. Raises ModelNotServed."""
    info = get_services(request).serving.predictions.model
    if not is_model(info, name, version):
        raise ModelNotServed(info.name, info.version)
    return info


def is_model(info: ModelInfo, name: str, version: str | None) -> bool:
    """Return whether the model has this name and, if one is given, this version."""
    return info.name == name and version in (None, info.version)
