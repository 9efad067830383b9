"""The options that name images to fit and measure a model's gate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

PhotosOption = Annotated[
    Path | None, typer.Option(help="Photographs that are not aerial images, in one folder per category.")
]
ScenesOption = Annotated[
    Path | None, typer.Option(help="Aerial images from other sensors, in one folder per group; no labels needed.")
]
