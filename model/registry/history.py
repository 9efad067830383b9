"""Reconstruct which version an alias pointed to at any time, from the recorded moves."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from msgspec import Struct

from model.registry.moves import AliasMove, Change


class Period(Struct, frozen=True):
    """A period in which the alias pointed to `version`, from the time of `move` to the next period.

    `move` is None for the time before the first recorded move, whose start is unknown.
    """

    version: str | None
    move: AliasMove | None

    @property
    def since(self) -> datetime | None:
        return None if self.move is None else datetime.fromisoformat(self.move.at)


class AliasHistory:
    """The history of one alias. `moves` are in the order in which they took effect; duplicates are ignored.

    `gaps` describes moves without a record, in sentences.
    """

    def __init__(self, alias: str, moves: Iterable[AliasMove]) -> None:
        self.alias = alias
        self.periods: list[Period] = []
        self.gaps: list[str] = []
        seen = set[str]()
        for move in moves:
            if move.id not in seen and alias in move.aliases:
                seen.add(move.id)
                self._append(move, move.aliases[alias])

    def find(self, moment: datetime) -> Period | None:
        """Return the period that contains the moment; None if it is before all periods."""
        match = None
        for period in self.periods:
            if period.since is None or period.since <= moment:
                match = period
        return match

    def check_present(self, version: str | None) -> None:
        """Add a gap unless the last recorded move set the alias to `version`, its current version."""
        recorded = self.periods[-1].version if self.periods else None
        if version != recorded:
            self.gaps.append(
                f"{self.alias} points to {version or 'no version'} now, but the record ends with "
                f"{recorded or 'no version'}: a later move has no record here."
            )

    def _append(self, move: AliasMove, change: Change) -> None:
        if not self.periods:
            if change.before is not None:
                self.periods.append(Period(change.before, None))
        elif change.before != self.periods[-1].version:
            self.gaps.append(
                f"Before {move.at}, {self.alias} was moved from {self.periods[-1].version or 'no version'} to "
                f"{change.before or 'no version'}, and that move has no record here."
            )
        self.periods.append(Period(change.after, move))
