"""Targets of a benchmark, and whether a measurement meets them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """A measured value and its limit: an upper one unless `is_minimum`. `unit` is shown after both."""

    name: str
    value: float
    limit: float
    unit: str = ""
    is_minimum: bool = False

    @property
    def is_met(self) -> bool:
        """Whether the value is within the limit, which NaN never is."""
        return self.value >= self.limit if self.is_minimum else self.value <= self.limit


def format_targets(targets: Iterable[Target]) -> list[str]:
    """Return a heading and one line for each target."""
    lines = [f"{'target':<38}{'measured':>14}{'limit':>20}"]
    for target in targets:
        kind = "at least" if target.is_minimum else "at most"
        limit = f"{kind} {_format(target.limit, target.unit)}"
        verdict = "met" if target.is_met else "MISSED"
        lines.append(f"{'  ' + target.name:<38}{_format(target.value, target.unit):>14}{limit:>20}   {verdict}")
    return lines


def _format(value: float, unit: str) -> str:
    digits = {"": 2, "x": 2, "us": 1, "ms": 1, "s": 2}.get(unit, 0)
    return f"{value:.{digits}f} {unit}".rstrip()
