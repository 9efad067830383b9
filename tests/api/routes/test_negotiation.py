"""Content negotiation."""

from __future__ import annotations

import pytest

from api.routes.negotiation import choose_language, choose_media_type

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
        ("image/png;version=2, image/png;version=1;q=0.1, application/json;q=0.5", PNG),
        ("image/png;q=7, application/json", JSON),
        (", ,;", JSON),
        ("image/png, text/plain, */*", PNG),
        ("image/*, */*", PNG),
        ("*/*, image/png;q=0.9", JSON),
        ("image/*;q=0, application/*;q=0, */*", JSON),
    ],
)
def test_the_most_wanted_type_is_chosen(accept: str, chosen: str) -> None:
    """The most specific range decides a type's quality; the highest quality wins, then the most specific range."""
    assert choose_media_type(accept, (JSON, PNG)) == chosen


@pytest.mark.parametrize(
    ("accept_language", "chosen"),
    [
        ("", "en"),
        ("es", "es"),
        ("ES-mx", "es"),
        ("es-419,es;q=0.9,en;q=0.8", "es"),
        ("en-US,en;q=0.9,es;q=0.8", "en"),
        ("fr, es;q=0.4, en;q=0.3", "es"),
        ("fr", "en"),
        ("*", "en"),
        ("es;q=0, *", "en"),
        ("esperanto", "en"),
        (", ;q=1,", "en"),
    ],
)
def test_the_most_wanted_language_is_chosen(accept_language: str, chosen: str) -> None:
    """A range accepts its primary language, the highest quality wins, and English is chosen without a match."""
    assert choose_language(accept_language, ("en", "es")) == chosen
