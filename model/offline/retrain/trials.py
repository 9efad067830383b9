"""The results of a search."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from model.offline.retrain import Choice


class Trial(Struct, frozen=True):
    """A finished trial: its number of epochs, and its results, which include the seconds for an epoch."""

    name: str
    epochs: int
    choice: Choice
    results: dict[str, float]


class SearchResult(Struct, frozen=True):
    """All trials, the best one first, the start model's results, and the number of epochs of the final fit."""

    trials: list[Trial]
    start: dict[str, float]
    epochs: int


def parse_search_result(document: dict[str, Any]) -> SearchResult:
    """Read a SearchResult from JSON members."""
    trials = [Trial(**{**trial, "choice": Choice(**trial["choice"])}) for trial in document["trials"]]
    return SearchResult(trials, document["start"], document["epochs"])
