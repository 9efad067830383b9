"""Images that are built part by part, so that decoders read far into them. A seed and a number determine each."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from tests.experiments.structured.jpegs import make_jpeg
from tests.experiments.structured.pngs import make_png
from tests.experiments.structured.tiffs import make_tiff
from tests.experiments.structured.webps import make_webp

_MAKERS: dict[str, Callable[[Random], bytes]] = {
    "JPEG": make_jpeg,
    "PNG": make_png,
    "WEBP": make_webp,
    "TIFF": make_tiff,
}


def make_structured(name: str, seed: int, number: int) -> bytes:
    """Build image `number` of a format."""
    return _MAKERS[name](Random(f"{seed} structured {name} {number}"))  # noqa: S311  (reproducible, not secret)
