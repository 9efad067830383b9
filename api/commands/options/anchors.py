"""Anchors on the command line."""

from __future__ import annotations

import re

import typer

from monitoring.chains.anchors import Anchor


def parse_anchor(text: str) -> Anchor:
    """Raises BadParameter."""
    number, _, digest = text.partition(":")
    if not re.fullmatch(r"[0-9]{1,18}", number) or not digest:
        raise typer.BadParameter("An anchor is a number, a colon and a hash, as `verify` printed it.")
    return Anchor(int(number), digest)
