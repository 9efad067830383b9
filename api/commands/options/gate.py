"""The options that name images to fit and measure a model's gate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

PhotosOption = Annotated[
    Path | None, typer.Option(help="Photographs that are not aerial images, in a folder for each category.")
]
ScenesOption = Annotated[
    Path | None, typer.Option(help="Aerial images of other sensors, in a folder for each group; no labels needed.")
]
