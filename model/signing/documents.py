"""Parse strict JSON, and its values: documents that parsers could interpret differently are rejected."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, NoReturn


def parse_document(data: bytes) -> Mapping[str, Any]:
    """Parse a JSON object in UTF-8. Raises ValueError, including for duplicate members, NaN and infinity."""
    try:
        document = json.loads(data.decode(), object_pairs_hook=_unique_members, parse_constant=_reject_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(document, dict):
        raise ValueError("it is not a JSON object")
    return document


def parse_text(value: object) -> str:
    """Return a string that is not empty. Raises ValueError."""
    if not isinstance(value, str) or not value:
        raise ValueError(f"{value!r} is not a non-empty string")
    return value


def parse_number(value: object) -> float:
    """Return a finite number. Raises ValueError; OverflowError for an integer that is too large."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a number")
    return float(value)


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("it has a member twice")
    return members


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
