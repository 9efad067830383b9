"""Tracks whether a destination of the log accepts lines, and reports each change."""

from __future__ import annotations

from collections.abc import Callable


class DestinationState:
    """Calls `on_failure(reason)` when the destination begins to fail, and `on_recovery` when it accepts lines again.

    Both log an event. They are called for a change only, because that event is sent to the destination as well.
    """

    def __init__(self, on_failure: Callable[[str], object], on_recovery: Callable[[], object]) -> None:
        self._on_failure = on_failure
        self._on_recovery = on_recovery
        self._failing = False

    def report(self, problem: str | None) -> None:
        """Report the outcome of a write: the problem, or None for success."""
        failing = problem is not None
        if failing == self._failing:
            return
        self._failing = failing
        if problem is None:
            self._on_recovery()
        else:
            self._on_failure(problem)
