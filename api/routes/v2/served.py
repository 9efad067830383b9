"""Which model the routes of the protocol serve."""

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
    check_model(info, name, version)
    return info


def check_model(info: ModelInfo, name: str, version: str | None) -> None:
    """Raises ModelNotServed."""
    if info.name != name or version not in (None, info.version):
        raise ModelNotServed(info.name, info.version)
