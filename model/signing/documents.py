"""Parse strict JSON: documents that parsers could interpret differently are rejected."""

from __future__ import annotations

import json
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


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("it has a member twice")
    return members


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
