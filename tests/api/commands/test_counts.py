"""Counts in messages agree with their nouns and verbs."""

from __future__ import annotations

import pytest

from api.commands.output import format_count, format_entries


@pytest.mark.parametrize(
    ("count", "verb", "entries", "images"),
    [
        (0, "0 were", "0 audit entries", "0 images"),
        (1, "1 was", "1 audit entry", "1 image"),
        (2, "2 were", "2 audit entries", "2 images"),
    ],
)
def test_only_one_is_singular(count: int, verb: str, entries: str, images: str) -> None:
    """Only a count of one takes the singular; a regular plural need not be given."""
    assert format_count(count, "was", "were") == verb
    assert format_entries(count, "audit") == entries
    assert format_entries(count) == entries.replace("audit ", "")
    assert format_count(count, "image") == images
