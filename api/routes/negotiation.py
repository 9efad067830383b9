"""Chooses the media type or language that a client prefers from a route's offer (RFC 9110, section 12.5)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress


def choose_media_type(accept: str, offered: Sequence[str]) -> str:
    """Return the offered type with the highest quality in an Accept header.

    Of several with the same quality, it is the one that the header names most precisely, or else the first one. A
    client that accepts none of them gets the first one, too.
    """
    ranges = _parse_ranges(accept)
    return max(offered, key=lambda media_type: _find_preference(media_type, ranges))


def choose_language(accept_language: str, offered: Sequence[str]) -> str:
    """Return the offered language of the best range in an Accept-Language header; the first one if none is accepted.

    `offered` are primary subtags in lower case. The range `es-MX` accepts `es` (Lookup, RFC 4647, section 3.4).
    """
    wanted = sorted(_parse_ranges(accept_language), key=lambda entry: entry[1], reverse=True)
    languages = (language_range.partition("-")[0] for language_range, quality in wanted if quality > 0)
    return next((language for language in languages if language in offered), offered[0])


def _parse_ranges(header: str) -> list[tuple[str, float]]:
    return [_parse_range(item) for item in header.split(",") if item.strip()]


def _parse_range(item: str) -> tuple[str, float]:
    """Split "image/png;q=0.5" into the range and its quality; other parameters are ignored."""
    accepted, *parameters = item.split(";")
    quality = 1.0
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "q":
            with suppress(ValueError):
                quality = min(1.0, max(0.0, float(value)))
    return accepted.strip().lower(), quality


def _find_preference(media_type: str, ranges: Sequence[tuple[str, float]]) -> tuple[float, int]:
    """Return the quality of the most specific range that matches, and how specific it is; zeros if none does."""
    matching = ("*/*", f"{media_type.partition('/')[0]}/*", media_type)
    # One type with several parameters, such as the versions of a format, has the highest of their qualities.
    qualities = dict(sorted(ranges, key=lambda entry: entry[1]))
    found = [(qualities[name], specificity) for specificity, name in enumerate(matching) if name in qualities]
    quality, specificity = found[-1] if found else (0.0, 0)
    return quality, specificity if quality else 0
