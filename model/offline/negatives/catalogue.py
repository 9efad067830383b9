"""The kinds of generated images, and which of them a gate may be fitted on."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from msgspec import Struct

from model.offline.changes import Pixels
from model.offline.negatives import documents, screenshots, textures
from model.offline.negatives.roles import Role

Generate = Callable[[np.random.Generator, tuple[int, int]], Pixels]


class Kind(Struct, frozen=True):
    """One generator. A gate is tested on all kinds, but never fitted on `held_out` kinds."""

    category: str
    name: str
    generate: Generate
    held_out: bool = False


KINDS: Sequence[Kind] = (
    Kind("documents", "text page", documents.draw_text_page),
    Kind("documents", "table", documents.draw_table),
    Kind("documents", "form", documents.draw_form),
    Kind("documents", "letter", documents.draw_letter, held_out=True),
    Kind("documents", "article", documents.draw_article, held_out=True),
    Kind("screenshots", "window", screenshots.draw_window),
    Kind("screenshots", "code", screenshots.draw_code),
    Kind("screenshots", "terminal", screenshots.draw_terminal),
    Kind("screenshots", "chart", screenshots.draw_chart),
    Kind("screenshots", "spreadsheet", screenshots.draw_spreadsheet, held_out=True),
    Kind("screenshots", "web page", screenshots.draw_web_page, held_out=True),
    Kind("noise", "white noise", textures.make_white_noise),
    Kind("noise", "coloured noise", textures.make_coloured_noise),
    Kind("noise", "static", textures.make_static),
    Kind("noise", "line noise", textures.make_line_noise),
    Kind("noise", "salt and pepper", textures.make_salt_and_pepper, held_out=True),
    Kind("plain surfaces", "flat colour", textures.make_flat_colour),
    Kind("plain surfaces", "linear gradient", textures.make_linear_gradient),
    Kind("plain surfaces", "radial gradient", textures.make_radial_gradient),
    Kind("plain surfaces", "bands", textures.make_bands, held_out=True),
)

# Part of every seed, so that the roles have different images.
_SEEDS: Mapping[Role, int] = {Role.FIT: 1, Role.TEST: 2}


class Generated(Struct, frozen=True):
    """An image to generate. `make` returns it, uint8 [height, width, 3]; it is the same in every run."""

    kind: Kind
    make: Callable[[], Pixels]


def list_generated(role: Role, per_kind: int, size: tuple[int, int]) -> list[Generated]:
    """List `per_kind` images of every kind that the role may use. `size` is (width, height)."""
    return [
        Generated(kind, partial(_generate, kind, [_SEEDS[role], zlib.crc32(kind.name.encode()), index], size))
        for kind in KINDS
        if role is Role.TEST or not kind.held_out
        for index in range(per_kind)
    ]


def _generate(kind: Kind, seed: Sequence[int], size: tuple[int, int]) -> Pixels:
    return kind.generate(np.random.default_rng(seed), size)
