"""The URL of a model in the registry: `registry://NAME@ALIAS`, or `registry://NAME` for the alias `production`."""

from __future__ import annotations

from msgspec import Struct

from model.registry.state import check_name

SCHEME = "registry"
PRODUCTION = "production"


class ModelReference(Struct, frozen=True):
    """Refers to the version of `model` that `alias` currently points to."""

    model: str
    alias: str


def parse_reference(url: str) -> ModelReference | None:
    """Return the reference in the URL, or None for a URL of another scheme. Raises InvalidName."""
    scheme, separator, rest = url.partition("://")
    if scheme != SCHEME or not separator:
        return None
    model, separator, alias = rest.partition("@")
    return ModelReference(check_name(model), check_name(alias) if separator else PRODUCTION)
