"""Content negotiation."""

from __future__ import annotations

import pytest

from api.routes.negotiation import choose_media_type

JSON, PNG = "application/json", "image/png"


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", JSON),
        ("*/*", JSON),
        ("application/json", JSON),
        ("image/png", PNG),
        ("IMAGE/PNG", PNG),
        ("image/*", PNG),
        ("image/png, application/json", JSON),
        ("application/json;q=0.5, image/png", PNG),
        ("application/json, image/png;q=0.9", JSON),
        ("image/png;q=0.2, application/json ; Q=0.1", PNG),
        ("image/avif, image/png, */*;q=0.8", PNG),
        ("*/*, application/json;q=0", PNG),
        ("image/*, image/png;q=0", JSON),
        ("image/png;q=0", JSON),
        ("text/html", JSON),
        ("image/png;q=high", PNG),
        ("image/png;q=7, application/json", JSON),
        (", ,;", JSON),
    ],
)
def test_the_most_wanted_type_is_chosen(accept: str, chosen: str) -> None:
    """The most specific range decides a type's quality, the highest quality wins, and JSON wins ties and misses."""
    assert choose_media_type(accept, (JSON, PNG)) == chosen
